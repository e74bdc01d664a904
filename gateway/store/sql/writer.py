"""The writing thread: group commit.

What has gathered while one transaction was being committed shares the next. One that fails does not spoil its
neighbours: the batch is then taken back and done again with a savepoint around each. Doing that only then saves two
statements an operation, each of which may have to wait for the interpreter's lock.
"""

import sqlite3
from pathlib import Path
from typing import Any

from gateway.store.sql.connection import open_for_writing, take_back
from gateway.store.sql.own_files import OwnFiles
from gateway.store.sql.vacuum import Tidying
from gateway.store.sql.worker import Operation, Worker


class Writer(Worker):
    """Owns the connection that writes."""

    max_batch = 512

    def __init__(self, path: Path, *, timeout_seconds: float, max_pending: int) -> None:
        super().__init__("store-writer", timeout_seconds=timeout_seconds, max_pending=max_pending)
        self.commits = 0
        self._path = path
        self._synchronous = ""
        self._tidying = Tidying()
        self._files: OwnFiles | None = None
        self.creates = True
        """Whether opening creates a file that does not exist."""
        self.is_new = False
        """Whether the store was empty when it was opened."""

    def _open(self) -> sqlite3.Connection:
        self._synchronous = ""
        # A killed process may have left something to tidy.
        self._tidying.begin()
        db, self.is_new = open_for_writing(self._path, self._timeout_seconds, create=self.creates)
        # The schema has been read, so SQLite has opened its log and its index too.
        self._files = OwnFiles(self._path)
        return db

    def _work(self, db: sqlite3.Connection, batch: list[Operation[Any]]) -> None:
        try:
            if self._files is not None:
                self._files.check()
            # FULL syncs the log at the commit, NORMAL leaves that to a checkpoint. Neither can be set in a transaction.
            self._set_synchronous(db, "FULL" if any(each.durable for each in batch) else "NORMAL")
            db.execute("BEGIN IMMEDIATE")
            # Waiting for another process's lock may have taken until the deadline.
            batch = [each for each in batch if not each.abandoned]
            if not all(each.attempt(db) for each in batch):
                take_back(db)
                db.execute("BEGIN IMMEDIATE")
                for each in batch:
                    _attempt_alone(each, db)
            db.execute("COMMIT")
        except Exception as exc:  # noqa: BLE001  whoever asked gets it, the thread goes on
            take_back(db)
            for each in batch:
                each.error = exc
        else:
            self.commits += 1
            if any(each.erases for each in batch):
                self._tidying.begin()

    def _set_synchronous(self, db: sqlite3.Connection, mode: str) -> None:
        if mode != self._synchronous:
            db.execute(f"PRAGMA synchronous = {mode}")
            self._synchronous = mode

    def _patience(self) -> float | None:
        return self._tidying.patience

    def _idle(self, db: sqlite3.Connection) -> None:
        self._tidying.step(db)


def _attempt_alone(operation: Operation[Any], db: sqlite3.Connection) -> None:
    db.execute("SAVEPOINT alone")
    if not operation.attempt(db):
        if operation.error is not None and not db.in_transaction:
            # The error (a full disk) took the transaction with it, and so the whole batch.
            raise operation.error
        db.execute("ROLLBACK TO alone")
    db.execute("RELEASE alone")
