"""Read and write whole tables of a SQLite file, for `gateway.store.copying`."""

# ruff: noqa: S608 - names of tables and columns are those of the schema
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.domain.audit import Actor
from gateway.store.copying import ALL, AT_ONCE, LEDGER, ColumnKind, Columns, Reading, Row, Sums, Writing, named, summing
from gateway.store.sql.migration import Migration
from gateway.store.sqlite.claim import Claim
from gateway.store.sqlite.connection import open_for_writing, open_unchanged, roll_back
from gateway.store.sqlite.failures import translated

_BUSY_SECONDS: Final = 5.0
_KINDS: Final = {
    "TEXT": ColumnKind.TEXT,
    "BLOB": ColumnKind.BYTES,
    "INTEGER": ColumnKind.WHOLE,
    "REAL": ColumnKind.REAL,
}
_SUMS: Final = {
    ColumnKind.TEXT: {"length": "coalesce(sum(length(CAST({0} AS BLOB))), 0)"},
    ColumnKind.BYTES: {"length": "coalesce(sum(length({0})), 0)"},
    ColumnKind.WHOLE: {"sum": "coalesce(sum({0}), 0)"},
    ColumnKind.REAL: {"lowest": "min({0})", "highest": "max({0})"},
}


class SQLiteTables:
    """A file with a transaction that locks it against writes."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection

    def tables(self) -> dict[str, Columns]:
        """Return the tables with their columns."""
        names = [
            name
            for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
            if not name.startswith("sqlite_")
        ]
        return {
            name: {column: _KINDS[kind] for _, column, kind, *_ in self._db.execute(f'PRAGMA table_info("{name}")')}
            for name in names
        }

    def count(self, table: str) -> int:
        """Return the number of rows."""
        (count,) = self._db.execute(f'SELECT count(*) FROM "{table}"').fetchone()
        return int(count)

    def rows(self, table: str, columns: Columns) -> Iterator[Row]:
        """Return all rows."""
        found = self._db.execute(f'SELECT {named(columns)} FROM "{table}"')
        while batch := found.fetchmany(AT_ONCE):
            yield from batch

    def sums(self, table: str, columns: Columns, which: str = ALL) -> Sums:
        """Sum up all rows for which the condition `which` holds."""
        wanted = summing(columns, _SUMS)
        values = self._db.execute(f'SELECT {", ".join(wanted.values())} FROM "{table}" WHERE {which}').fetchone()
        return dict(zip(wanted, values, strict=True))

    def ledger(self) -> dict[str, int]:
        """Return the micro-dollars of all ledger lines, by kind."""
        return {str(kind): int(str(microusd)) for kind, microusd in self._db.execute(LEDGER)}

    def write(self, table: str, columns: Columns, rows: list[Row]) -> None:
        """Add rows."""
        marks = ", ".join("?" for _ in columns)
        self._db.executemany(f'INSERT INTO "{table}" ({named(columns)}) VALUES ({marks})', rows)

    def renumber(self) -> None:
        """Do nothing: SQLite numbers new rows above all others."""

    def commit(self) -> None:
        """Commit everything that was written."""
        self._db.execute("COMMIT")


@contextmanager
def locked_file(path: Path, *, create: bool) -> Iterator[SQLiteTables]:
    """Lock a store's file against writes, and against processes that would serve from it.

    With `create`, a file that does not exist is created; without, it is left as it is. Raise `StoreUnavailable`.
    """
    claim = Claim(path)
    try:
        if create:
            db, _ = open_for_writing(path, _BUSY_SECONDS, create=True)
        else:
            db = open_unchanged(path, _BUSY_SECONDS)
        try:
            claim.take()
            db.execute("BEGIN IMMEDIATE")
            yield SQLiteTables(db)
        finally:
            roll_back(db)
            db.close()
            claim.release()
    except sqlite3.Error as exc:
        raise translated(exc) from exc


def migrate_file(path: Path, by: Actor) -> Migration:
    """Bring the schema of a file up to date, or create it, as a change of `by`. Raise `StoreUnavailable`."""
    try:
        db, migration = open_for_writing(path, _BUSY_SECONDS, create=True, by=by)
        db.close()
    except sqlite3.Error as exc:
        raise translated(exc) from exc
    return migration


if TYPE_CHECKING:
    _: type[Reading] = SQLiteTables
    _target: type[Writing] = SQLiteTables
