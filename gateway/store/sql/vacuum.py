"""Making sure that what was deleted is gone from the disk: in small steps, in quiet moments.

`secure_delete` overwrites deleted content in the database's pages. Older copies of those pages lie in the write-ahead
log until it is cut off, and the emptied pages make the file no smaller until they are given back.
"""

import sqlite3
from contextlib import suppress

PAGES_A_STEP = 128
QUIET_SECONDS = 0.05
HINDERED_SECONDS = 1.0
"""Pause after a step that another process's reader, or the disk, did not let through."""


class Tidying:
    """What is left to do after deletions."""

    def __init__(self) -> None:
        self.patience: float | None = None
        """Seconds of quiet to wait for before the next step; `None` if there is nothing to do."""

    def begin(self) -> None:
        """Note that something was deleted."""
        self.patience = QUIET_SECONDS

    def step(self, db: sqlite3.Connection) -> None:
        """Give back some pages; after the last ones, cut off the log."""
        self.patience = HINDERED_SECONDS
        with suppress(sqlite3.Error):
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
            if free:
                # `execute` would stop after the first page.
                db.executescript(f"PRAGMA incremental_vacuum({PAGES_A_STEP})")
                self.patience = QUIET_SECONDS
            elif _cut_log(db):
                self.patience = None


def _cut_log(db: sqlite3.Connection) -> bool:
    """Empty the write-ahead log into the file, unless someone is reading from it: nobody is to wait for that."""
    (busy_milliseconds,) = db.execute("PRAGMA busy_timeout").fetchone()
    db.execute("PRAGMA busy_timeout = 0")
    try:
        (is_busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        db.execute(f"PRAGMA busy_timeout = {busy_milliseconds}")
    return not is_busy
