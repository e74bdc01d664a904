"""Opening the file: who may read it, how SQLite treats it, and what is put into a new one.

The file stays open to other processes: the command line adds and revokes keys while the gateway runs.
"""

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from gateway.errors import StoreUnavailable
from gateway.store.sql.failures import unavailable
from gateway.store.sql.schema import migrate, refuse_newer

OLDEST_SQLITE = (3, 35, 0)
"""The first with RETURNING."""
_CACHE_KIB = 16 * 1024
# After a burst the write-ahead log is cut back to this.
_WAL_LIMIT_BYTES = 64 * 1024 * 1024


def open_for_writing(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open the file, make it if it is not there, and bring its schema up to date."""
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreUnavailable(f"The store needs SQLite 3.35 or newer; this is {sqlite3.sqlite_version}.")
    try:
        _create(path)
    except OSError as exc:
        raise unavailable(exc) from exc
    db = _connect(path, busy_seconds)
    try:
        refuse_newer(db)
        # These two are facts of the file, and take effect in this order, before its first table only.
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        _use_log(db, busy_seconds)
        # Deleted content is overwritten at once; what lies in the log goes with the next checkpoint (tidying.py).
        db.execute("PRAGMA secure_delete = ON")
        db.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT_BYTES}")
        migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def open_for_reading(path: Path, busy_seconds: float) -> sqlite3.Connection:
    """Open a file that exists, only to read it."""
    db = _connect(path, busy_seconds)
    db.execute("PRAGMA query_only = ON")
    return db


def take_back(db: sqlite3.Connection) -> None:
    """End a transaction to no effect, if one is still open."""
    # SQLite may have ended it by itself; if it cannot even do that, the next BEGIN will say what is wrong.
    with suppress(sqlite3.Error):
        if db.in_transaction:
            db.execute("ROLLBACK")


def _create(path: Path) -> None:
    """Make the file, and its folder, for this user alone. What exists keeps its mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _use_log(db: sqlite3.Connection, busy_seconds: float) -> None:
    """Switch to a write-ahead log. Here SQLite does not wait for another process that does the same."""
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
    # Transactions are begun and ended by hand (isolation_level=None).
    db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, cached_statements=256)
    db.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return db
