"""Lasting failures: of the disk, the file or the data in it. A locked file or a full queue is not one.

A small write may succeed on a disk that is full for a large one, so a ping does not prove that creates can be recorded.
After such a failure of a write, the store counts as failing until a trial write has succeeded. Damaged pages, which a
trial may not touch, make it count as failing for a minute, whether a write or a read has found them: what is recorded
beside them may not survive a restart.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Final, NamedTuple

from gateway.errors import StoreUnavailable
from gateway.store.sql.database import Database

RECENT_SECONDS: Final = 60.0
DAMAGED: Final = "damaged"
_TRIAL: Final = "".join(sha256(number.to_bytes(2)).hexdigest() for number in range(1024))
"""64 KiB that an engine cannot compress."""


class Failure(NamedTuple):
    """A failure that lasts."""

    kind: str
    detail: str
    at: float


class LastingFailures:
    """The last failures of reads and writes. Times are those of the event loop."""

    def __init__(
        self, kind_of: Callable[[Exception], str | None], translated: Callable[[Exception], Exception]
    ) -> None:
        """Create the record. An engine says which errors last, by their kind, and what they mean."""
        self._kind_of = kind_of
        self._translated = translated
        self._failing: Failure | None = None
        self._last: Failure | None = None

    def note(self, lane: str, error: Exception, now: float) -> str | None:
        """Note an error and return its kind, or `None` if the failure is not a lasting one."""
        kind = self._kind_of(error)
        if kind is None:
            return None
        reported = self._translated(error)
        detail = reported.detail if isinstance(reported, StoreUnavailable) else str(reported)
        self._last = Failure(kind, detail, now)
        if lane == "write" or kind == DAMAGED:
            self._failing = self._last
        return kind

    def note_trial(self) -> None:
        """Note that a trial write succeeded."""
        if self._failing is not None and self._failing.kind != DAMAGED:
            self._failing = None

    def failing(self, now: float) -> Failure | None:
        """Return the failure because of which nothing may be recorded at the moment."""
        failing = self._failing
        if failing is not None and failing.kind == DAMAGED and now - failing.at > RECENT_SECONDS:
            self._failing = failing = None
        return failing

    def recent(self, now: float) -> str | None:
        """Describe a failure of the last minute."""
        last = self._last
        return last.detail if last is not None and now - last.at <= RECENT_SECONDS else None


def try_write(db: Database) -> None:
    """Write about as much as a create with a usual input, and remove it. The log has it at the commit."""
    db.execute("learn_version", {"version": "", "model": _TRIAL})
    db.execute("forget_version", {"version": ""})
