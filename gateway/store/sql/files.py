"""Uploaded files (the `Files` role)."""

import sqlite3
from collections.abc import Sequence

import msgspec

from gateway.domain.cursors import Cursor
from gateway.domain.records import File, Page
from gateway.store.sql.connections import Connections
from gateway.store.sql.paging import Bounds, Listing, Place, Statements
from gateway.store.sql.queries import SQL
from gateway.store.sql.rows import FILES

_OF_TEAM = Statements.named("files_of_team")
_OF_OWNER = Statements.named("files_of_owner")
_OF_ALL = Statements.named("files_of_all")


class SQLiteFiles(Connections):
    """Records of files that teams uploaded."""

    async def add_file(self, file: File) -> None:
        """Add a file."""

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["add_file"], FILES.row(file))

        await self._write(step)

    async def file(self, file_id: str) -> File | None:
        """Return a file by its id."""

        def step(db: sqlite3.Connection) -> File | None:
            row = db.execute(SQL["file"], {"id": file_id}).fetchone()
            return None if row is None else FILES.record(row)

        return await self._read(step)

    async def files_among(self, file_ids: Sequence[str]) -> list[File]:
        """Return the files with these ids, without unknown ones."""
        ids = msgspec.json.encode(list(dict.fromkeys(file_ids))).decode()

        def step(db: sqlite3.Connection) -> list[File]:
            return [FILES.record(row) for row in db.execute(SQL["files_among"], {"ids": ids})]

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
        return await self._read(lambda db: db.execute(SQL["has_file_of_size"], parameters).fetchone() is not None)

    async def files_of_content(self, team: str, sha256: str, kept_at: float, limit: int = 10) -> list[File]:
        """Return a team's files with the same bytes."""
        parameters = {"team": team, "sha256": sha256, "kept_at": kept_at, "limit": limit}
        return await self._read(
            lambda db: [FILES.record(row) for row in db.execute(SQL["files_of_content"], parameters)]
        )

    async def share_file(self, file: File) -> bool:
        """Add a file if another record uses the same upstream file."""

        def step(db: sqlite3.Connection) -> bool:
            is_used = _is_used(db, file.upstream_id)
            if is_used:
                db.execute(SQL["add_file"], FILES.row(file))
            return is_used

        return await self._write(step)

    async def delete_file(self, file_id: str) -> bool:
        """Delete a file's record; return whether this released its upstream file."""

        def step(db: sqlite3.Connection) -> bool:
            deleted = db.execute(SQL["delete_file"], {"id": file_id}).fetchall()
            return bool(deleted) and not _is_used(db, deleted[0][0])

        return await self._write(step, erases=True)

    async def delete_expired_files(self, before: float, limit: int) -> int:
        """Forget some of the files that have expired."""

        def step(db: sqlite3.Connection) -> int:
            return db.execute(SQL["delete_expired_files"], {"before": before, "limit": limit}).rowcount

        return await self._write(step, erases=True)


def _place(file: File) -> Place:
    return file.created_at, file.id


def _is_used(db: sqlite3.Connection, upstream_id: str) -> bool:
    """Return whether a record uses an upstream file."""
    return db.execute(SQL["use_of_upstream_file"], {"upstream_id": upstream_id}).fetchone() is not None
