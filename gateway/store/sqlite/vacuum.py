"""Remove deleted data from the disk, in small steps while the store is idle.

`secure_delete` overwrites deleted content in the database's pages. Older copies of those pages stay in the write-ahead
log until it is truncated, and free pages make the file smaller only after they are returned to the file system.
"""

import sqlite3
from contextlib import suppress

PAGES_A_STEP = 128
QUIET_SECONDS = 0.05
BLOCKED_SECONDS = 1.0
"""Pause after a step that failed because of another process's reader or the disk."""


class Vacuum:
    """The remaining work after deletions."""

    def __init__(self) -> None:
        self.idle_seconds: float | None = None
        """Idle time before the next step; `None` if there is nothing to do."""

    def begin(self) -> None:
        """Schedule steps. Call after data was deleted."""
        self.idle_seconds = QUIET_SECONDS

    def step(self, db: sqlite3.Connection) -> None:
        """Return some free pages to the file system; if there are none, truncate the write-ahead log."""
        self.idle_seconds = BLOCKED_SECONDS
        with suppress(sqlite3.Error):
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
            if free:
                # `execute` would stop after the first page.
                db.executescript(f"PRAGMA incremental_vacuum({PAGES_A_STEP})")
                self.idle_seconds = QUIET_SECONDS
            elif _truncate_log(db):
                self.idle_seconds = None


def _truncate_log(db: sqlite3.Connection) -> bool:
    """Write the write-ahead log into the file and truncate it. Return `False` at once if a reader prevents that."""
    (busy_milliseconds,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute("PRAGMA busy_timeout = 0")
    try:
        (is_busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        db.execute(f"PRAGMA busy_timeout = {busy_milliseconds}")
    return not is_busy
