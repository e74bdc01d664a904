"""What SQLite's errors mean, in a sentence each. No error of `sqlite3` leaves the store."""

import sqlite3

from gateway.errors import StoreUnavailable

# A full or broken disk is not mended within a second, a lock is gone sooner.
_MEANINGS = {
    sqlite3.SQLITE_BUSY: ("The store is locked by another process.", 1),
    sqlite3.SQLITE_LOCKED: ("The store is locked by another process.", 1),
    sqlite3.SQLITE_FULL: ("The store's disk is full.", 30),
    sqlite3.SQLITE_IOERR: ("The store's disk cannot be read or written.", 30),
    sqlite3.SQLITE_READONLY: ("The store's file may not be written.", 30),
    sqlite3.SQLITE_PERM: ("The store's file may not be opened.", 30),
    sqlite3.SQLITE_CANTOPEN: ("The store's file cannot be opened.", 30),
    sqlite3.SQLITE_CORRUPT: ("The store's file is damaged.", 30),
    sqlite3.SQLITE_NOTADB: ("The store's file is not a database.", 30),
    sqlite3.SQLITE_NOMEM: ("The store has run out of memory.", 5),
}
_OTHERWISE = ("The store cannot answer.", 5)


def unavailable(exc: sqlite3.Error | OSError) -> StoreUnavailable:
    """Say what is wrong; `exc`, which names the details for the log, is the error's cause."""
    # The low byte is the kind of error, the rest tells where in SQLite it came up.
    code = getattr(exc, "sqlite_errorcode", -1) & 0xFF
    if isinstance(exc, OSError):
        code = sqlite3.SQLITE_CANTOPEN
    detail, retry_after = _MEANINGS.get(code, _OTHERWISE)
    error = StoreUnavailable(detail, retry_after=retry_after)
    error.__cause__ = exc
    return error
