"""Open the SQLite file: permissions, SQLite's settings, and the schema.

Other processes can use the file at the same time: the command line adds and revokes keys while the gateway runs.
"""

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from gateway.domain.audit import Actor
from gateway.errors import StoreUnavailable
from gateway.store.sql.migration import Migration
from gateway.store.sqlite import large_values
from gateway.store.sqlite.failures import unavailable
from gateway.store.sqlite.schema import is_empty, migrate, refuse_newer, refuse_older

OLDEST_SQLITE = (3, 35, 0)
"""The first version with RETURNING."""
_CACHE_KIB = 16 * 1024
# SQLite truncates the write-ahead log to this size after it has grown larger.
_WAL_LIMIT_BYTES = 64 * 1024 * 1024


def open_for_writing(
    path: Path, busy_seconds: float, *, create: bool, by: Actor | None = None
) -> tuple[sqlite3.Connection, Migration]:
    """Open the file and bring its schema up to date. Return the connection, and what was migrated.

    The migration is recorded as a change of `by`, if somebody asked for it.

    The file is created only with `create`, and its folder never: a mistyped path, or a volume that is not mounted, must
    not become an empty ledger without keys.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreUnavailable(f"The store needs SQLite 3.35 or newer; this is {sqlite3.sqlite_version}.")
    refuse_without_folder(path)
    if create:
        _create(path)
    elif not path.exists():
        raise StoreUnavailable(
            f"There is no store at {path.absolute()}. `gateway serve` or `gateway keys create` creates it."
        )
    db = _connect(path, busy_seconds)
    try:
        if is_empty(db) and not create:
            _refuse_empty(path)
        refuse_newer(db)
        # These two settings are stored in the file. They only take effect in this order and before its first table.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _use_log(db, busy_seconds)
        # Deleted content is overwritten at once. Copies in the write-ahead log remain until vacuum.py truncates it.
        db.execute("PRAGMA secure_delete = ON")
        db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
        migration = migrate(db, by)
        large_values.prepare(db)
    except BaseException:
        db.close()
        raise
    return db, migration


def _refuse_empty(path: Path) -> NoReturn:
    raise StoreUnavailable(f"The file {path} has no store in it. `gateway serve` creates one there.")


def inspect(path: Path, busy_seconds: float) -> bool:
    """Say whether there is a store. Create and change nothing. Raise `StoreUnavailable` if it could not be opened."""
    refuse_without_folder(path)
    try:
        if not path.exists():
            if not os.access(path.parent, os.W_OK | os.X_OK):
                raise StoreUnavailable(f"The store's file cannot be created: the folder {path.parent} is not writable.")
            return False
        db = _connect(path, busy_seconds)
        try:
            refuse_newer(db)
            if is_empty(db):
                return False
            # Proves that the file can be read and written.
            db.execute("BEGIN IMMEDIATE")
            db.execute("ROLLBACK")
        finally:
            db.close()
    except (sqlite3.Error, OSError) as exc:
        raise unavailable(exc) from exc
    return True


def refuse_without_folder(path: Path) -> None:
    """Refuse a path whose folder does not exist."""
    if not path.parent.is_dir():
        raise StoreUnavailable(
            f"The store's file cannot be opened: there is no folder {path.parent}. Create it, or correct [store] url.",
            retry_after=30,
        )


def open_for_reading(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open an existing file read-only."""
    db = _connect(path, busy_seconds)
    db.execute("PRAGMA query_only = ON")
    return db


def open_unchanged(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open a file that has a store of this version. Raise `StoreUnavailable` otherwise."""
    refuse_without_folder(path)
    if not path.exists():
        raise StoreUnavailable(f"There is no store at {path.absolute()}.")
    db = _connect(path, busy_seconds)
    try:
        refuse_newer(db)
        if is_empty(db):
            _refuse_empty(path)
        refuse_older(db)
    except BaseException:
        db.close()
        raise
    return db


def roll_back(db: sqlite3.Connection) -> None:
    """Roll back the open transaction, if there is one. Never raises."""
    # SQLite rolls back by itself after some errors. If the rollback fails, the next BEGIN raises the reason.
    with suppress(sqlite3.Error):
        if db.in_transaction:
            db.execute("ROLLBACK")


def _create(path: Path) -> None:
    """Create the file for this user alone. A file that exists keeps its mode."""
    try:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as exc:
        raise unavailable(exc) from exc


def _use_log(db: sqlite3.Connection, busy_seconds: float) -> None:
    """Switch to a write-ahead log. Retried here: SQLite's busy timeout does not apply to this statement."""
    end = time.monotonic() + busy_seconds
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return


def _connect(path: Path, busy_seconds: float) -> sqlite3.Connection:
    # isolation_level=None: the caller begins and commits transactions itself.
    # `mode=rw` opens a file that exists, and never creates one.
    url = f"{path.absolute().as_uri()}?mode=rw"
    db = sqlite3.connect(url, uri=True, timeout=busy_seconds, isolation_level=None, cached_statements=256)
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return db
