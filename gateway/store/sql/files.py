"""Uploaded files (the `Files` role)."""

from collections.abc import Sequence

import msgspec

from gateway.domain.cursors import Cursor
from gateway.domain.records import File, Page
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock
from gateway.store.sql.paging import Bounds, Listing, Place, Statements
from gateway.store.sql.rows import FILES

_OF_TEAM = Statements.named("files_of_team")
_OF_OWNER = Statements.named("files_of_owner")
_OF_ALL = Statements.named("files_of_all")


class FileSteps(Connections):
    """Records of files that teams uploaded."""

    async def add_file(self, file: File) -> None:
        """Add a file."""

        def step(db: Database) -> None:
            db.execute("add_file", FILES.row(file))

        await self._write(step)

    async def file(self, file_id: str) -> File | None:
        """Return a file by its id."""

        def step(db: Database) -> File | None:
            row = db.execute("file", {"id": file_id}).fetchone()
            return None if row is None else FILES.record(row)

        return await self._read(step)

    async def files_among(self, file_ids: Sequence[str]) -> list[File]:
        """Return the files with these ids, without unknown ones."""
        # No id has a NUL character, which an engine may refuse in the array.
        ids = msgspec.json.encode([each for each in dict.fromkeys(file_ids) if "\0" not in each]).decode()

        def step(db: Database) -> list[File]:
            return [FILES.record(row) for row in db.execute("files_among", {"ids": ids})]

        return await self._read(step)

    async def files(
        self,
        *,
        team: str | None,
        limit: int,
        now: float,
        owner: str | None = None,
        position: Cursor | None = None,
        max_bytes: int | None = None,
    ) -> Page:
        """List files that have not expired, newest first, up to `max_bytes` of rows."""
        of_team = _OF_TEAM if owner is None else _OF_OWNER
        statements, scope = _OF_ALL if team is None else of_team, {"team": team, "owner": owner, "now": now}
        listing = Listing(statements, scope, Bounds(), FILES.record, _place)
        return Page(*await self._read(lambda db: listing.stretch(db, limit, position, max_bytes)))

    async def has_file_of_size(self, team: str, smallest: int, largest: int, kept_at: float) -> bool:
        """Return whether a team has a file in a range of sizes."""
        parameters = {"team": team, "smallest": smallest, "largest": largest, "kept_at": kept_at}
        return await self._read(lambda db: db.execute("has_file_of_size", parameters).fetchone() is not None)

    async def files_of_content(self, team: str, sha256: str, kept_at: float, limit: int = 10) -> list[File]:
        """Return a team's files with the same bytes."""
        parameters = {"team": team, "sha256": sha256, "kept_at": kept_at, "limit": limit}
        return await self._read(lambda db: [FILES.record(row) for row in db.execute("files_of_content", parameters)])

    async def share_file(self, file: File) -> bool:
        """Add a file if another record uses the same upstream file."""

        def step(db: Database) -> bool:
            db.lock(Lock.FILES)
            is_used = _is_used(db, file.upstream_id)
            if is_used:
                db.execute("add_file", FILES.row(file))
            return is_used

        return await self._write(step)

    async def delete_file(self, file_id: str) -> bool:
        """Delete a file's record; return whether this released its upstream file."""

        def step(db: Database) -> bool:
            db.lock(Lock.FILES)
            deleted = db.execute("delete_file", {"id": file_id}).fetchall()
            return bool(deleted) and not _is_used(db, deleted[0][0])

        return await self._write(step, erases=True)

    async def delete_expired_files(self, before: float, limit: int) -> int:
        """Forget some of the files that have expired."""

        def step(db: Database) -> int:
            return db.execute("delete_expired_files", {"before": before, "limit": limit}).rowcount

        return await self._write(step, erases=True)


def _place(file: File) -> Place:
    return file.created_at, file.id


def _is_used(db: Database, upstream_id: str) -> bool:
    """Return whether a record uses an upstream file."""
    return db.execute("use_of_upstream_file", {"upstream_id": upstream_id}).fetchone() is not None
