"""Lasting failures: of the disk, the file or the data in it. A locked file or a full queue is not one.

A small write may succeed on a disk that is full for a large one, so a ping does not prove that creates can be recorded.
After such a failure of a write, the store counts as failing until a trial write has succeeded, and where pages are
damaged, which a trial may not touch, for a minute.
"""

import sqlite3
from typing import Final, NamedTuple

from gateway.domain.ports.observers import STORE_FAILURES
from gateway.store.sql.failures import unavailable

RECENT_SECONDS: Final = 60.0
_DAMAGED: Final = "damaged"
_KINDS: Final = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_IOERR: "io",
    sqlite3.SQLITE_READONLY: "access",
    sqlite3.SQLITE_PERM: "access",
    sqlite3.SQLITE_CANTOPEN: "access",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
_TRIAL_BYTES: Final = 65_536
assert {*_KINDS.values(), "lost"} == set(STORE_FAILURES)


class Failure(NamedTuple):
    """A failure that lasts."""

    kind: str
    detail: str
    at: float


class Troubles:
    """The last failures of reads and writes. Times are those of the event loop."""

    def __init__(self) -> None:
        self._failing: Failure | None = None
        self._last: Failure | None = None

    def note(self, lane: str, error: Exception, now: float) -> str | None:
        """Note an error and return its kind, or `None` if the failure is not a lasting one."""
        kind = _kind_of(error)
        if kind is None:
            return None
        detail = str(unavailable(error).detail) if isinstance(error, sqlite3.Error) else str(error)
        self._last = Failure(kind, detail, now)
        if lane == "write":
            self._failing = self._last
        return kind

    def note_trial(self) -> None:
        """Note that a trial write succeeded."""
        if self._failing is not None and self._failing.kind != _DAMAGED:
            self._failing = None

    def failing(self, now: float) -> Failure | None:
        """Return the failure because of which nothing may be recorded at the moment."""
        failing = self._failing
        if failing is not None and failing.kind == _DAMAGED and now - failing.at > RECENT_SECONDS:
            self._failing = failing = None
        return failing

    def recent(self, now: float) -> str | None:
        """Describe a failure of the last minute."""
        last = self._last
        return last.detail if last is not None and now - last.at <= RECENT_SECONDS else None


def try_write(db: sqlite3.Connection) -> None:
    """Write about as much as a create with a usual input, and remove it. The log has it at the commit."""
    db.execute("INSERT INTO versions VALUES ('', ?)", (" " * _TRIAL_BYTES,))
    db.execute("DELETE FROM versions WHERE version = ''")


def _kind_of(error: Exception) -> str | None:
    if isinstance(error.__cause__, FileNotFoundError):
        return "lost"
    cause = error if isinstance(error, sqlite3.Error) else error.__cause__
    return _KINDS.get(getattr(cause, "sqlite_errorcode", -1) & 0xFF)
