"""The reading thread: what has gathered is read from one snapshot, taken after all of it was asked for."""

import sqlite3
from pathlib import Path
from typing import Any

from gateway.store.sql.connection import open_for_reading, take_back
from gateway.store.sql.worker import Operation, Worker


class Reader(Worker):
    """Owns the connection that reads."""

    # Reads have no commit to share: a batch saves only hand-overs between threads.
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
                # A read that nobody waits for need not be done.
                if not each.future.done():
                    each.attempt(db)
            db.execute("COMMIT")
        except sqlite3.Error as exc:
            take_back(db)
            for each in batch:
                each.error = exc
