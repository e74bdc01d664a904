"""Upload files to upstream. A team's identical bytes are sent only once, while upstream has them.

See docs/architecture.md, Files and outputs.

Whether an upload repeats an earlier one is known only when all its bytes have arrived. So an upload is spooled first if
it can be a repetition: if the team has a file, or an upload in progress, of about its size. Any other upload is
streamed to upstream directly.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress

import msgspec

from gateway.domain import ids, times
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import DeliveryObserver
from gateway.domain.ports.records import Files
from gateway.domain.ports.upstream import Upstream
from gateway.domain.records import File
from gateway.domain.teams import Caller
from gateway.domain.upstream_response import Answer
from gateway.errors import BodyTooSlow, UpstreamBroken
from gateway.files.rules.uploads import FRAME_BYTES, LEAST_LIFE_SECONDS, Described, another, can_reuse, sizes
from gateway.files.spool import Spools
from gateway.files.transfers import Transfers, begun
from gateway.runtime.live import LiveSettings
from gateway.runtime.random_bytes import RandomPool
from gateway.runtime.tasks import Tasks

_LIFE_SECONDS = 24 * 3600.0
_ID_BYTES = 16
_PATIENCE_SECONDS = 5.0
"""How long a complete upload waits for earlier ones that can be equal. A slow sender must not delay its team's other
uploads for longer; then the bytes are uploaded twice."""


class UploadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of uploads."""

    max_spool_bytes: int
    """Room on disk for uploads that wait until their content is known."""


class Upload(msgspec.Struct, frozen=True):
    """A multipart upload. `measured` and `described` can be called once `chunks` is exhausted."""

    chunks: AsyncIterator[bytes]
    content_type: str
    measured: Callable[[], tuple[str, int]]
    """Hex SHA-256 and size in bytes of the content."""
    described: Callable[[], Described]
    length: int | None
    """Content-Length of the body, if the caller sent one."""
    max_length: int


class _Document(msgspec.Struct):
    id: str
    created_at: str | None = None
    expires_at: str | None = None


_decode = msgspec.json.Decoder(_Document).decode


class UploadService:
    """Uploads files and records them."""

    def __init__(
        self,
        store: Files,
        upstream: Upstream,
        clock: Clock,
        observer: DeliveryObserver,
        settings: LiveSettings[UploadSettings],
        transfers: Transfers,
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._observer = observer
        self._transfers = transfers
        self._spools = Spools(lambda: settings.value.max_spool_bytes)
        self._in_progress = _UploadsInProgress()
        self._randomness = RandomPool()
        self._tasks = Tasks()

    @property
    def spooled_bytes(self) -> int:
        """Bytes that uploads have reserved in spools."""
        return self._spools.held_bytes

    async def upload(self, caller: Caller, upload: Upload) -> tuple[File | None, Answer]:
        """Upload a file, or reuse one with the same bytes, and record it for the caller's team.

        Return the file and upstream's answer; the file is `None` if upstream refused it. Raise the errors of the form's
        parser and the upstream errors, and `RateLimited` if too many uploads are in progress.
        """
        async with self._transfers.admit(caller):
            try:
                return await self._upload(caller, upload)
            except BodyTooSlow:
                self._transfers.too_slow()
                raise

    async def _upload(self, caller: Caller, upload: Upload) -> tuple[File | None, Answer]:
        room = min(upload.length or upload.max_length, upload.max_length)
        with self._in_progress.enter(caller.team.name, upload.length) as earlier:
            may_be_known = bool(earlier) or await self._has_like(caller.team.name, upload.length)
            if not may_be_known or not self._spools.has_room(room):
                return await self._send(caller, upload, upload.chunks)
            async with self._spools.open(room) as spool:
                await spool.fill(upload.chunks)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE_SECONDS):
                        await asyncio.gather(*(pending.wait() for pending in earlier))
                file = await self._known(caller, upload)
                if file is not None:
                    self._observer.uploaded("known")
                    return file, Answer(201, {}, b"")
                return await self._send(caller, upload, spool.chunks())

    async def find(self, team: str, sha256: str, described: Described) -> File | None:
        """Return a file of a team that upstream has, with these bytes and of this type and extension."""
        for file in await self._store.files_of_content(team, sha256, self._clock.now() + LEAST_LIFE_SECONDS):
            if can_reuse(file, described) and await self._exists_upstream(file.upstream_id):
                return file
        return None

    async def _has_like(self, team: str, length: int | None) -> bool:
        smallest, largest = sizes(length)
        return await self._store.has_file_of_size(team, smallest, largest, self._clock.now() + LEAST_LIFE_SECONDS)

    async def _known(self, caller: Caller, upload: Upload) -> File | None:
        """Return a new record for an existing upstream file with the same bytes; `None` if there is none."""
        now, described = self._clock.now(), upload.described()
        sha256, _ = upload.measured()
        for file in await self._store.files_of_content(caller.team.name, sha256, now + LEAST_LIFE_SECONDS):
            if not can_reuse(file, described):
                continue
            new = another(file, described, ids.file_id(self._randomness.bytes(_ID_BYTES)), caller, now)
            exists = False
            try:
                # Record first, then check upstream: if the other record is deleted meanwhile, the upstream file stays,
                # because this record uses it. If the other record has been deleted already, nothing is added.
                is_added = await self._tasks.run_to_completion(self._store.share_file(new), "add file")
                exists = is_added and await self._exists_upstream(file.upstream_id)
            finally:
                # The caller does not get the id after an error or a cancellation, so it could not delete the record.
                if not exists:
                    await self._tasks.run_to_completion(self._store.delete_file(new.id), "delete file")
            if exists:
                return new
        return None

    async def _exists_upstream(self, upstream_id: str) -> bool:
        """Return whether upstream has a file. It can have been deleted without the gateway."""
        return (await self._upstream.read("files.get", f"/files/{upstream_id}")).is_ok

    async def _send(self, caller: Caller, upload: Upload, chunks: AsyncIterator[bytes]) -> tuple[File | None, Answer]:
        answer = await self._upstream.upload("files.create", "/files", await begun(chunks), upload.content_type)
        if not answer.is_ok:
            self._observer.uploaded("refused")
            return None, answer
        try:
            document = _decode(answer.body)
        except (msgspec.MsgspecError, RecursionError) as exc:
            raise UpstreamBroken("Replicate's response to the upload is not valid.") from exc
        sha256, size = upload.measured()
        now = self._clock.now()
        file = File(
            id=document.id,
            team=caller.team.name,
            key_id=caller.key_id,
            owner=caller.owner,
            sha256=sha256,
            size=size,
            created_at=_time(document.created_at, now),
            expires_at=_time(document.expires_at, now + _LIFE_SECONDS),
            upstream_id=document.id,
            document=answer.body.strip(),
        )
        await self._tasks.run_to_completion(self._store.add_file(file), "add file")
        self._observer.uploaded("sent")
        return file, answer

    async def close(self) -> None:
        """Wait for pending writes."""
        await self._tasks.close()


class _UploadsInProgress:
    """The uploads in progress, by team. The server's limit on requests bounds their number."""

    def __init__(self) -> None:
        self._by_team: dict[str, dict[asyncio.Event, int]] = {}

    @contextmanager
    def enter(self, team: str, length: int | None) -> Iterator[list[asyncio.Event]]:
        """Register an upload until the context ends. Yield the end events of earlier ones of about the same size."""
        in_progress = self._by_team.setdefault(team, {})
        earlier = [
            end for end, other in in_progress.items() if length is not None and abs(other - length) <= FRAME_BYTES
        ]
        end = asyncio.Event()
        if length is not None:
            in_progress[end] = length
        try:
            yield earlier
        finally:
            end.set()
            in_progress.pop(end, None)
            if not in_progress:
                self._by_team.pop(team, None)


def _time(text: str | None, otherwise: float) -> float:
    try:
        return times.parse(text) if text else otherwise
    except ValueError:
        return otherwise
