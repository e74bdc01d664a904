"""The reading thread. A batch of reads runs on one snapshot, taken after all of them were submitted."""

import sqlite3
from pathlib import Path
from typing import Any

from gateway.store.sql.database import SumBounds
from gateway.store.sql.worker import Operation, Worker
from gateway.store.sqlite.connection import open_for_reading, roll_back
from gateway.store.sqlite.database import SQLiteDatabase
from gateway.store.sqlite.failures import translated


class Reader(Worker[SQLiteDatabase]):
    """Owns the reading connection."""

    # Reads have no commit to share. A batch only saves switches between threads.
    max_batch = 64

    def __init__(self, path: Path, *, timeout_seconds: float, max_pending: int) -> None:
        super().__init__("store-reader", timeout_seconds=timeout_seconds, max_pending=max_pending)
        self._path = path

    def _open(self) -> SQLiteDatabase:
        return SQLiteDatabase(open_for_reading(self._path, self._timeout_seconds), SumBounds())

    def _close(self, db: SQLiteDatabase) -> None:
        db.connection.close()

    def _translated(self, error: Exception) -> Exception:
        return translated(error)

    def _work(self, db: SQLiteDatabase, batch: list[Operation[Any]]) -> None:
        try:
            db.connection.execute("BEGIN")
            for each in batch:
                # Skip reads whose caller was cancelled or timed out.
                if not each.future.done():
                    each.attempt(db)
            db.connection.execute("COMMIT")
        except sqlite3.Error as exc:
            roll_back(db.connection)
            for each in batch:
                each.error = exc
