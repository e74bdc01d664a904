"""Uploads: sent on as they come in, and identical bytes of a team once while upstream has them.

See docs/architecture.md, Files and outputs.

Whether bytes are known is known at their end only. So an upload waits in a spool if it may be one that the team has, or
one that is just under way: where there is a file of about that size. Any other passes straight through.
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
from gateway.errors import UpstreamBroken
from gateway.files.rules.uploads import FRAME_BYTES, LEAST_LIFE_SECONDS, Described, another, can_stand_for, sizes
from gateway.files.spool import Spools
from gateway.runtime.live import LiveSettings
from gateway.runtime.random_bytes import RandomPool
from gateway.runtime.tasks import Tasks

_LIFE_SECONDS = 24 * 3600.0
_ID_BYTES = 16
_PATIENCE_SECONDS = 5.0
"""How long an upload that is all here waits for others that may turn out to be equal. A sender who dribbles must not
hold up the rest of the team for the sake of bytes that are uploaded twice."""


class UploadSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of uploads."""

    max_spool_bytes: int
    """Room on disk for uploads that wait until their content is known."""


class Upload(msgspec.Struct, frozen=True):
    """A multipart body on its way through. What it was is told once its chunks have passed."""

    chunks: AsyncIterator[bytes]
    content_type: str
    measured: Callable[[], tuple[str, int]]
    """Hex SHA-256 and size in bytes of the content."""
    described: Callable[[], Described]
    length: int | None
    """Bytes of the body as the caller has announced them."""
    max_length: int


class _Document(msgspec.Struct):
    id: str
    created_at: str | None = None
    expires_at: str | None = None


_decode = msgspec.json.Decoder(_Document).decode


class UploadService:
    """Takes uploads."""

    def __init__(
        self,
        store: Files,
        upstream: Upstream,
        clock: Clock,
        observer: DeliveryObserver,
        settings: LiveSettings[UploadSettings],
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._observer = observer
        self._spools = Spools(lambda: settings.value.max_spool_bytes)
        self._under_way = _UnderWay()
        self._randomness = RandomPool()
        self._tasks = Tasks()

    @property
    def spooled_bytes(self) -> int:
        """Room that uploads have in spools."""
        return self._spools.held_bytes

    async def upload(self, caller: Caller, upload: Upload) -> tuple[File | None, Answer]:
        """Have a file upstream and remember whose it is; `None` beside upstream's refusal.

        Raise what is wrong with the upload's form, and the upstream errors.
        """
        room = min(upload.length or upload.max_length, upload.max_length)
        with self._under_way.enter(caller.team.name, upload.length) as earlier:
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

    async def _has_like(self, team: str, length: int | None) -> bool:
        smallest, largest = sizes(length)
        return await self._store.has_file_of_size(team, smallest, largest, self._clock.now() + LEAST_LIFE_SECONDS)

    async def _known(self, caller: Caller, upload: Upload) -> File | None:
        """Return a new file that stands for one of equal bytes that upstream still has."""
        now, described = self._clock.now(), upload.described()
        sha256, _ = upload.measured()
        for file in await self._store.files_of_content(caller.team.name, sha256, now + LEAST_LIFE_SECONDS):
            if not can_stand_for(file, described):
                continue
            made = another(file, described, ids.file_id(self._randomness.bytes(_ID_BYTES)), caller.key_id, now)
            # Recorded before upstream is asked: who deletes the other one meanwhile lets upstream keep its file.
            await self._tasks.run_to_completion(self._store.add_file(made), "add file")
            is_there = False
            try:
                is_there = await self._is_upstream(file.upstream_id)
            finally:
                # Nobody was told of it, so nobody would delete it: not if upstream is away, nor if the caller has left.
                if not is_there:
                    await self._tasks.run_to_completion(self._store.delete_file(made.id), "delete file")
            if is_there:
                return made
        return None

    async def _is_upstream(self, upstream_id: str) -> bool:
        """Ask: it may have been deleted by other ways than the gateway."""
        return (await self._upstream.read("files.get", f"/files/{upstream_id}")).is_ok

    async def _send(self, caller: Caller, upload: Upload, chunks: AsyncIterator[bytes]) -> tuple[File | None, Answer]:
        answer = await self._upstream.upload("files.create", "/files", chunks, upload.content_type)
        if not answer.is_ok:
            self._observer.uploaded("refused")
            return None, answer
        try:
            document = _decode(answer.body)
        except (msgspec.MsgspecError, RecursionError) as exc:
            raise UpstreamBroken("Replicate's answer to the upload could not be understood.") from exc
        sha256, size = upload.measured()
        now = self._clock.now()
        file = File(
            id=document.id,
            team=caller.team.name,
            key_id=caller.key_id,
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
        """Finish what is being written."""
        await self._tasks.close()


class _UnderWay:
    """The uploads under way, by team. As many as there are requests, which the server bounds."""

    def __init__(self) -> None:
        self._flights: dict[str, dict[asyncio.Event, int]] = {}

    @contextmanager
    def enter(self, team: str, length: int | None) -> Iterator[list[asyncio.Event]]:
        """Be under way; return the ends of earlier ones that may be of the same bytes."""
        pending_creates = self._flights.setdefault(team, {})
        earlier = [
            end for end, known in pending_creates.items() if length is not None and abs(known - length) <= FRAME_BYTES
        ]
        end = asyncio.Event()
        if length is not None:
            pending_creates[end] = length
        try:
            yield earlier
        finally:
            end.set()
            pending_creates.pop(end, None)
            if not pending_creates:
                self._flights.pop(team, None)


def _time(text: str | None, otherwise: float) -> float:
    try:
        return times.parse(text) if text else otherwise
    except ValueError:
        return otherwise
