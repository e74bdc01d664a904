"""Read and write whole tables of a PostgreSQL database, for `gateway.store.copying`."""

# ruff: noqa: S608 - names of tables and columns are those of the schema
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import psycopg

from gateway.errors import StoreUnavailable
from gateway.store.copying import ALL, AT_ONCE, LEDGER, ColumnKind, Columns, Reading, Row, Sums, Writing, named, summing
from gateway.store.postgres.connection import Address
from gateway.store.postgres.failures import at_start
from gateway.store.postgres.schema import Connection, open_schema, refuse_older

_LOCK_MILLISECONDS: Final = 10_000
_KINDS: Final = {
    "text": ColumnKind.TEXT,
    "bytea": ColumnKind.BYTES,
    "bigint": ColumnKind.WHOLE,
    "double precision": ColumnKind.REAL,
}
_TYPES: Final = {
    ColumnKind.TEXT: "text",
    ColumnKind.BYTES: "bytea",
    ColumnKind.WHOLE: "int8",
    ColumnKind.REAL: "float8",
}
_SUMS: Final = {
    ColumnKind.TEXT: {"length": "coalesce(sum(octet_length({0})), 0)"},
    ColumnKind.BYTES: {"length": "coalesce(sum(octet_length({0})), 0)"},
    ColumnKind.WHOLE: {"sum": "coalesce(sum({0}), 0)"},
    ColumnKind.REAL: {"lowest": "min({0})", "highest": "max({0})"},
}
_COLUMNS: Final = b"""
    SELECT table_name, column_name, data_type FROM information_schema.columns
    WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position"""
_IDENTITIES: Final = b"""
    SELECT table_name, column_name FROM information_schema.columns
    WHERE table_schema = current_schema() AND is_identity = 'YES'"""
_NODES: Final = b"""
    SELECT count(*) FROM nodes WHERE ended_at IS NULL AND expires_at > extract(epoch FROM clock_timestamp())"""


class PostgresTables:
    """A database with a transaction that locks it against writes."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def tables(self) -> dict[str, Columns]:
        """Return the tables with their columns."""
        found: dict[str, dict[str, ColumnKind]] = {}
        for table, column, kind in self._db.execute(_COLUMNS):
            found.setdefault(str(table), {})[str(column)] = _KINDS.get(str(kind), ColumnKind.OTHER)
        return dict(found)

    def count(self, table: str) -> int:
        """Return the number of rows."""
        row = self._db.execute(f'SELECT count(*) FROM "{table}"'.encode()).fetchone()
        assert row is not None
        return int(str(row[0]))

    def rows(self, table: str, columns: Columns) -> Iterator[Row]:
        """Return all rows."""
        with psycopg.RawServerCursor(self._db, "rows") as cursor:
            cursor.itersize = AT_ONCE
            yield from cursor.execute(f'SELECT {named(columns)} FROM "{table}"'.encode(), binary=True)

    def sums(self, table: str, columns: Columns, which: str = ALL) -> Sums:
        """Sum up all rows for which the condition `which` holds."""
        wanted = summing(columns, _SUMS)
        statement = f'SELECT {", ".join(wanted.values())} FROM "{table}" WHERE {which}'
        values = self._db.execute(statement.encode(), binary=True).fetchone()
        assert values is not None
        return dict(zip(wanted, values, strict=True))

    def ledger(self) -> dict[str, int]:
        """Return the micro-dollars of all ledger lines, by kind."""
        return {str(kind): int(str(microusd)) for kind, microusd in self._db.execute(LEDGER.encode())}

    def write(self, table: str, columns: Columns, rows: list[Row]) -> None:
        """Add rows."""
        statement = f'COPY "{table}" ({named(columns)}) FROM STDIN (FORMAT BINARY)'
        with self._db.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            copy.set_types([_TYPES[kind] for kind in columns.values()])
            for row in rows:
                copy.write_row(row)

    def renumber(self) -> None:
        """Let new rows get numbers above those that were written."""
        for table, column in self._db.execute(_IDENTITIES).fetchall():
            self._db.execute(
                f"SELECT setval(pg_get_serial_sequence('{table}', '{column}'), max({column})) FROM {table}".encode()
            )

    def commit(self) -> None:
        """Commit everything that was written."""
        self._db.execute(b"COMMIT")
        # So that the first requests are planned by what is there.
        self._db.execute(b"ANALYZE")


@contextmanager
def locked_database(address: Address, *, create: bool) -> Iterator[PostgresTables]:
    """Lock a store's database against writes, which processes that would serve from it wait for.

    With `create`, the tables are created; without, the database is left as it is. Raise `StoreUnavailable`.
    """
    try:
        if create:
            open_schema(address, create=True)
        with address.connect(
            statement_timeout="0", lock_timeout=str(_LOCK_MILLISECONDS), idle_in_transaction_session_timeout="0"
        ) as connection:
            if not create:
                refuse_older(connection)
            tables = PostgresTables(connection)
            names = ", ".join(f'"{each}"' for each in tables.tables())
            connection.execute(b"BEGIN ISOLATION LEVEL REPEATABLE READ")
            # The snapshot is that of the first statement after the locks.
            connection.execute(f"LOCK TABLE {names} IN EXCLUSIVE MODE".encode())
            _refuse_served(connection)
            yield tables
    except psycopg.Error as exc:
        raise at_start(exc) from exc


def _refuse_served(connection: Connection) -> None:
    if connection.execute(_NODES).fetchone() != (0,):
        raise StoreUnavailable("A process serves from the database. Stop it first.")


if TYPE_CHECKING:
    _: type[Reading] = PostgresTables
    _target: type[Writing] = PostgresTables
