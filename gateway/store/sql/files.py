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
        self, *, team: str | None, limit: int, now: float, owner: str | None = None, position: Cursor | None = None
    ) -> Page:
        """List files that have not expired, newest first."""
        of_team = _OF_TEAM if owner is None else _OF_OWNER
        statements, scope = _OF_ALL if team is None else of_team, {"team": team, "owner": owner, "now": now}
        listing = Listing(statements, scope, Bounds(), FILES.record, _place)
        return Page(*await self._read(lambda db: listing.stretch(db, limit, position)))

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

    async def count_of_upstream_file(self, upstream_id: str) -> int:
        """Count the records that use an upstream file."""

        def step(db: sqlite3.Connection) -> int:
            ((count,),) = db.execute(SQL["count_of_upstream_file"], {"upstream_id": upstream_id}).fetchall()
            return int(count)

        return await self._read(step)

    async def delete_file(self, file_id: str) -> None:
        """Delete a file's record."""

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["delete_file"], {"id": file_id})

        await self._write(step, erases=True)

    async def delete_expired_files(self, before: float, limit: int) -> int:
        """Forget some of the files that have expired."""

        def step(db: sqlite3.Connection) -> int:
            return db.execute(SQL["delete_expired_files"], {"before": before, "limit": limit}).rowcount

        return await self._write(step, erases=True)


def _place(file: File) -> Place:
    return file.created_at, file.id
