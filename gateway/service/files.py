"""Files: uploaded through the gateway, owned by a team, shown from our own records."""

import logging
from collections.abc import AsyncIterator, Callable

import msgspec

from gateway.core import times
from gateway.core.answers import Answer
from gateway.core.cursors import Cursor
from gateway.core.records import File, Page
from gateway.core.teams import Caller
from gateway.errors import NotFound, UpstreamBroken
from gateway.ports import Clock, Files, Upstream
from gateway.service.tasks import Tasks

logger = logging.getLogger(__name__)

PAGE_SIZE = 100
_LIFE_SECONDS = 24 * 3600.0


class Upload(msgspec.Struct, frozen=True):
    """A multipart body on its way through. `measured` tells, once the chunks have passed, what the content was."""

    chunks: AsyncIterator[bytes]
    content_type: str
    measured: Callable[[], tuple[str, int]]
    """Hex SHA-256 and size in bytes of the content."""


class _Document(msgspec.Struct):
    id: str
    created_at: str | None = None
    expires_at: str | None = None


_decode = msgspec.json.Decoder(_Document).decode


class FileService:
    """Uploads, lists, shows and deletes files of a team."""

    def __init__(self, store: Files, upstream: Upstream, clock: Clock) -> None:
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._tasks = Tasks()

    async def upload(self, caller: Caller, upload: Upload) -> tuple[File | None, Answer]:
        """Send a file upstream and remember whose it is; `None` beside upstream's refusal."""
        answer = await self._upstream.upload("files.create", "/files", upload.chunks, upload.content_type)
        if not answer.is_ok:
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
            document=answer.body.strip(),
        )
        await self._tasks.to_the_end(self._store.add_file(file))
        return file, answer

    async def get(self, caller: Caller, file_id: str) -> File:
        """Return a file of the caller's. Raise `NotFound` for what is unknown, expired, or somebody else's."""
        file = await self._store.file(file_id)
        if file is None or not caller.owns(file.team) or file.expires_at <= self._clock.now():
            raise NotFound
        return file

    async def list(self, caller: Caller, position: Cursor | None = None) -> Page:
        """List the caller's files, newest first, `PAGE_SIZE` a page."""
        return await self._store.files(team=caller.team.name, limit=PAGE_SIZE, now=self._clock.now(), position=position)

    async def delete(self, caller: Caller, file_id: str) -> Answer:
        """Delete a file upstream, then here. What upstream no longer knows is deleted all the same."""
        await self.get(caller, file_id)
        answer = await self._upstream.send("files.delete", "DELETE", f"/files/{file_id}")
        if answer.is_ok or answer.status == 404:
            await self._tasks.to_the_end(self._store.delete_file(file_id))
            return Answer(204, {}, b"")
        return answer

    async def close(self) -> None:
        """Finish what is being written."""
        await self._tasks.close()


def _time(text: str | None, otherwise: float) -> float:
    try:
        return times.parse(text) if text else otherwise
    except ValueError:
        return otherwise
