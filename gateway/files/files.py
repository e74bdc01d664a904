"""List, show and delete a team's files from the gateway's records. `uploads.py` creates them."""

from collections.abc import Callable

from gateway.domain.cursors import Cursor
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.records import Files
from gateway.domain.ports.upstream import Upstream
from gateway.domain.records import File, Page
from gateway.domain.teams import NO_LIST, Caller
from gateway.domain.upstream_response import Answer
from gateway.errors import Forbidden, NotFound
from gateway.runtime.tasks import Tasks

PAGE_SIZE = 100
_MAX_PAGE_BYTES = 8 * 1024 * 1024


class FileService:
    """Lists, shows and deletes the files of a team."""

    def __init__(
        self,
        store: Files,
        upstream: Upstream,
        clock: Clock,
        *,
        max_page_bytes: Callable[[], int] = lambda: _MAX_PAGE_BYTES,
    ) -> None:
        """Take `max_page_bytes`, after which a page of the list ends: a file's document has its metadata."""
        self._max_page_bytes = max_page_bytes
        self._store = store
        self._upstream = upstream
        self._clock = clock
        self._tasks = Tasks()

    async def get(self, caller: Caller, file_id: str) -> File:
        """Return a file of the caller's team. Raise `NotFound` if it is unknown, expired, or another team's."""
        file = await self._store.file(file_id)
        if file is None or not caller.may_see(file.team, file.owner) or file.expires_at <= self._clock.now():
            raise NotFound
        return file

    async def list(self, caller: Caller, position: Cursor | None = None) -> Page:
        """List the files that the caller sees, newest first, `PAGE_SIZE` per page, fewer if their metadata is large.

        Raise `Forbidden` for publishable keys.
        """
        if caller.is_shared_by_visitors:
            raise Forbidden(NO_LIST)
        now, owner = self._clock.now(), caller.sees_owner
        return await self._store.files(
            team=caller.team.name,
            limit=PAGE_SIZE,
            now=now,
            owner=owner,
            position=position,
            max_bytes=self._max_page_bytes(),
        )

    async def delete(self, caller: Caller, file_id: str) -> Answer:
        """Delete a file's record, and the file upstream if no other record uses it.

        If upstream does not know the file, the record is deleted anyway. If upstream fails, the record stays: return
        its answer, or raise the upstream errors. The work goes on when the caller is cancelled.
        """
        file = await self.get(caller, file_id)
        return await self._tasks.run_to_completion(self._delete(file), "delete file")

    async def _delete(self, file: File) -> Answer:
        # The record goes first: an equal upload that comes meanwhile must not use the upstream file.
        is_released = await self._store.delete_file(file.id)
        if not is_released:
            return Answer(204, {}, b"")
        is_deleted = False
        try:
            answer = await self._upstream.send("files.delete", "DELETE", f"/files/{file.upstream_id}")
            is_deleted = answer.is_ok or answer.status == 404
        finally:
            if not is_deleted:
                await self._store.add_file(file)
        return Answer(204, {}, b"") if is_deleted else answer

    async def close(self, grace_seconds: float) -> None:
        """Wait for the deletions in progress, for so long."""
        await self._tasks.close(grace_seconds)
