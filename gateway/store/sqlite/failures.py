"""Translate SQLite's errors into `StoreUnavailable`. No `sqlite3` exception leaves the store."""

import sqlite3
from typing import Final

from gateway.domain.ports.observers import STORE_FAILURES
from gateway.errors import StoreUnavailable
from gateway.store.sql.lasting_failures import DAMAGED

# Message and `retry_after` seconds by SQLite error code. A lock is short; a full or broken disk is not.
_MEANINGS = {
    sqlite3.SQLITE_BUSY: ("The store is locked by another process.", 1),
    sqlite3.SQLITE_LOCKED: ("The store is locked by another process.", 1),
    sqlite3.SQLITE_FULL: ("The store's disk is full.", 30),
    sqlite3.SQLITE_IOERR: ("The store's disk cannot be read or written.", 30),
    sqlite3.SQLITE_READONLY: ("The store's file is read-only.", 30),
    sqlite3.SQLITE_PERM: ("The store's file cannot be opened: permission denied.", 30),
    sqlite3.SQLITE_CANTOPEN: ("The store's file cannot be opened.", 30),
    sqlite3.SQLITE_CORRUPT: ("The store's file is damaged.", 30),
    sqlite3.SQLITE_NOTADB: ("The store's file is not a database.", 30),
    sqlite3.SQLITE_NOMEM: ("The store has run out of memory.", 5),
}
# The kinds of failures that last. A locked file is not one.
_KINDS: Final = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_IOERR: "io",
    sqlite3.SQLITE_READONLY: "access",
    sqlite3.SQLITE_PERM: "access",
    sqlite3.SQLITE_CANTOPEN: "access",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}
assert {*_KINDS.values(), "lost"} == set(STORE_FAILURES)
_OTHERWISE = ("The store failed.", 5)


def unavailable(exc: sqlite3.Error | OSError) -> StoreUnavailable:
    """Return the error for callers. `exc`, with the details for the log, is its cause."""
    # The low byte is the primary result code; the rest makes it an extended one.
    code = getattr(exc, "sqlite_errorcode", -1) & 0xFF
    if isinstance(exc, OSError):
        code = sqlite3.SQLITE_CANTOPEN
    detail, retry_after = _MEANINGS.get(code, _OTHERWISE)
    error = StoreUnavailable(detail, retry_after=retry_after)
    error.__cause__ = exc
    return error


def translated(error: Exception) -> Exception:
    """Return the error for callers of a step that failed."""
    return unavailable(error) if isinstance(error, sqlite3.Error) else error


def kind_of(error: Exception) -> str | None:
    """Return the kind of a failure that lasts (`STORE_FAILURES`), or `None`."""
    if isinstance(error.__cause__, FileNotFoundError):
        return "lost"
    cause = error if isinstance(error, sqlite3.Error) else error.__cause__
    return _KINDS.get(getattr(cause, "sqlite_errorcode", -1) & 0xFF)
