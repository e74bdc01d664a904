"""Create and migrate the schema, by the files of `migrations/` in order. Several processes can do it at once.

`schema_version` has a row for each file that was applied. Two neighbouring versions of the gateway can use one
database: a file only adds what the version before does not need. A file whose first line is `-- oldest reader: N` shuts
out gateways that know fewer than N files.
"""

import re
import time
from importlib import resources
from typing import Final, NamedTuple

import psycopg

from gateway.domain.audit import Actor
from gateway.errors import StoreUnavailable
from gateway.store.postgres.connection import OLDEST_SERVER, Address
from gateway.store.postgres.failures import at_start
from gateway.store.postgres.locks import key_of
from gateway.store.sql.migration import Migration

_LOCK: Final = key_of("SCHEMA", "")
# A migration that waits for a table holds up every step that comes after it, so it waits for a moment and tries again.
_LOCK_MILLISECONDS: Final = 50
_PAUSE_SECONDS: Final = 0.1
_RETRIED_SECONDS: Final = 30.0
_NOT_AVAILABLE: Final = frozenset({"55P03", "40P01"})

Connection = psycopg.Connection[tuple[object, ...]]


class _Version(NamedTuple):
    """How many files were applied, and how many a gateway must know to use the database."""

    files: int
    oldest_reader: int


def open_schema(address: Address, *, create: bool, by: Actor | None = None) -> Migration:
    """Bring the schema up to date. Without `create`, a store that is missing is refused.

    The migration is recorded as a change of `by`, if somebody asked for it. Raise `StoreUnavailable`.
    """
    try:
        with address.connect(statement_timeout="0", lock_timeout=str(_LOCK_MILLISECONDS)) as connection:
            _refuse_server(connection)
            version = _version(connection)
            if version is None and not create:
                raise StoreUnavailable("The database has no store in it. `gateway serve` creates one there.")
            return _migrate_with_retries(connection, by)
    except psycopg.Error as exc:
        raise at_start(exc) from exc


def inspect(address: Address, pool: Address) -> bool:
    """Say whether there is a store. Create and change nothing. Raise `StoreUnavailable` if it cannot be used.

    `pool` is the address that steps use: the same, or that of a pooler.
    """
    try:
        if pool.is_pooled:
            with pool.connect() as pooled:
                _refuse_server(pooled)
        with address.connect() as connection:
            _refuse_server(connection)
            version = _version(connection)
            if version is not None:
                _refuse_newer(version)
            return version is not None
    except psycopg.Error as exc:
        raise at_start(exc) from exc


def _refuse_server(connection: Connection) -> None:
    if connection.info.server_version < OLDEST_SERVER:
        raise StoreUnavailable(f"The store needs PostgreSQL 14 or newer; this is {connection.info.server_version}.")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreUnavailable(f"The store needs a database with the encoding UTF8; this one has {encoding}.")


def _version(connection: Connection) -> _Version | None:
    """Return what was applied; `None` if the database has no store in it."""
    if connection.execute(b"SELECT to_regclass('schema_version')").fetchone() == (None,):
        return None
    row = connection.execute(
        b"SELECT coalesce(max(version), 0), coalesce(max(oldest_reader), 0) FROM schema_version"
    ).fetchone()
    assert row is not None
    return _Version(*(int(str(each)) for each in row))


def refuse_older(connection: Connection) -> None:
    """Raise `StoreUnavailable` if there is no store, or one that is not of this version."""
    _refuse_server(connection)
    version = _version(connection)
    if version is None:
        raise StoreUnavailable("The database has no store in it.")
    _refuse_newer(version)
    if version.files < len(_files()):
        raise StoreUnavailable("The store is of an older version: run `gateway store migrate` first.")


def _refuse_newer(version: _Version) -> None:
    newest = len(_files())
    if version.oldest_reader > newest:
        raise StoreUnavailable(
            f"The database was migrated by a newer gateway (schema version {version.files}, for gateways from version "
            f"{version.oldest_reader}; this one supports {newest})."
        )


def _migrate_with_retries(connection: Connection, by: Actor | None) -> Migration:
    end = time.monotonic() + _RETRIED_SECONDS
    while True:
        try:
            with connection.transaction():
                return _migrate(connection, by)
        except psycopg.Error as exc:
            if exc.sqlstate not in _NOT_AVAILABLE or time.monotonic() > end:
                raise
            time.sleep(_PAUSE_SECONDS)


def _migrate(connection: Connection, by: Actor | None) -> Migration:
    """Apply missing files."""
    files, version = _files(), _version(connection)
    if version is not None:
        _refuse_newer(version)
        if version.files >= len(files):
            return Migration(version.files, version.files)
    connection.execute(b"SELECT pg_advisory_xact_lock($1)", [_LOCK])
    # Another process may have migrated meanwhile.
    version = _version(connection)
    applied, oldest = version or _Version(0, 0)
    for number, text in enumerate(files[applied:], applied + 1):
        # Without parameters, several statements can be sent at once.
        connection.execute(text.encode())
        shuts_out = re.match(r"-- oldest reader: (\d+)\n", text)
        oldest = max(oldest, int(shuts_out[1]) if shuts_out else 1)
        connection.execute(
            b"INSERT INTO schema_version (version, at, oldest_reader) VALUES ($1, $2, $3)",
            [number, time.time(), oldest],
        )
    migration = Migration(applied, max(applied, len(files)))
    if by is not None and (entry := migration.entry(time.time(), by)):
        marks = ", ".join(f"${number}" for number in range(1, len(entry) + 1))
        statement = f"INSERT INTO audit ({', '.join(entry)}) VALUES ({marks})"  # noqa: S608 - our columns
        connection.execute(statement.encode(), list(entry.values()))
    return migration


def _files() -> list[str]:
    files = resources.files("gateway.store.postgres").joinpath("migrations").iterdir()
    return [each.read_text(encoding="utf-8") for each in sorted(files, key=lambda each: each.name)]
