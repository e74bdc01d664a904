"""The reading thread. A batch of reads runs on one snapshot, taken after all of them were submitted."""

import sqlite3
from pathlib import Path
from typing import Any

from gateway.store.sql.connection import open_for_reading, roll_back
from gateway.store.sql.worker import Operation, Worker


class Reader(Worker):
    """Owns the reading connection."""

    # Reads have no commit to share. A batch only saves switches between threads.
    max_batch = 64

    def __init__(self, path: Path, *, timeout_seconds: float, max_pending: int) -> None:
        super().__init__("store-reader", timeout_seconds=timeout_seconds, max_pending=max_pending)
        self._path = path

    def _open(self) -> sqlite3.Connection:
        return open_for_reading(self._path, self._timeout_seconds)

    def _work(self, db: sqlite3.Connection, batch: list[Operation[Any]]) -> None:
        try:
            db.execute("BEGIN")
            for each in batch:
                # Skip reads whose caller was cancelled or timed out.
                if not each.future.done():
                    each.attempt(db)
            db.execute("COMMIT")
        except sqlite3.Error as exc:
            roll_back(db)
            for each in batch:
                each.error = exc
