"""The writing thread, with group commit.

Operations that are queued while one transaction commits share the next. If one of a batch fails, the batch is rolled
back and run again with a savepoint around each operation, so that the others succeed. Savepoints are used only then:
they cost two statements per operation, each of which can have to wait for the interpreter's lock.
"""

import sqlite3
from pathlib import Path
from typing import Any

from gateway.store.sql.connection import open_for_writing, roll_back
from gateway.store.sql.own_files import OwnFiles
from gateway.store.sql.vacuum import Vacuum
from gateway.store.sql.worker import Operation, Worker


class Writer(Worker):
    """Owns the writing connection."""

    max_batch = 512

    def __init__(self, path: Path, *, timeout_seconds: float, max_pending: int) -> None:
        super().__init__("store-writer", timeout_seconds=timeout_seconds, max_pending=max_pending)
        self.commits = 0
        self._path = path
        self._synchronous = ""
        self._vacuum = Vacuum()
        self._files: OwnFiles | None = None
        self.creates = True
        """Whether opening creates a file that does not exist."""
        self.is_new = False
        """Whether the store was empty when it was opened."""

    def _open(self) -> sqlite3.Connection:
        self._synchronous = ""
        # An earlier process can have been killed before it had finished.
        self._vacuum.begin()
        db, self.is_new = open_for_writing(self._path, self._timeout_seconds, create=self.creates)
        # The schema has been read, so SQLite has opened its log and its index too.
        self._files = OwnFiles(self._path)
        return db

    def _work(self, db: sqlite3.Connection, batch: list[Operation[Any]]) -> None:
        try:
            if self._files is not None:
                self._files.check()
            # FULL syncs the log at commit, NORMAL only at a checkpoint. The mode cannot be set inside a transaction.
            self._set_synchronous(db, "FULL" if any(each.durable for each in batch) else "NORMAL")
            db.execute("BEGIN IMMEDIATE")
            # While BEGIN waited for another process's lock, deadlines can have passed.
            batch = [each for each in batch if not each.abandoned]
            if not all(each.attempt(db) for each in batch):
                roll_back(db)
                db.execute("BEGIN IMMEDIATE")
                for each in batch:
                    _attempt_alone(each, db)
            db.execute("COMMIT")
        except Exception as exc:  # noqa: BLE001  the callers get the error; the thread must go on
            roll_back(db)
            for each in batch:
                each.error = exc
        else:
            self.commits += 1
            if any(each.erases for each in batch):
                self._vacuum.begin()

    def _set_synchronous(self, db: sqlite3.Connection, mode: str) -> None:
        if mode != self._synchronous:
            db.execute(f"PRAGMA synchronous = {mode}")
            self._synchronous = mode

    def _idle_seconds(self) -> float | None:
        return self._vacuum.idle_seconds

    def _idle(self, db: sqlite3.Connection) -> None:
        self._vacuum.step(db)


def _attempt_alone(operation: Operation[Any], db: sqlite3.Connection) -> None:
    db.execute("SAVEPOINT alone")
    if not operation.attempt(db):
        if operation.error is not None and not db.in_transaction:
            # SQLite has rolled back the entire transaction (for example, disk full), so the entire batch has failed.
            raise operation.error
        db.execute("ROLLBACK TO alone")
    db.execute("RELEASE alone")
