"""The writing thread, with group commit.

Operations that are queued while one transaction commits share the next. If one of a batch fails, the batch is rolled
back and run again with a savepoint around each operation, so that the others succeed. Savepoints are used only then:
they cost two statements per operation, each of which can have to wait for the interpreter's lock.
"""

import sqlite3
from pathlib import Path
from typing import Any

from gateway.store.sql.database import SumBounds
from gateway.store.sql.worker import Operation, Worker
from gateway.store.sqlite.connection import open_for_writing, roll_back
from gateway.store.sqlite.database import SQLiteDatabase
from gateway.store.sqlite.failures import translated
from gateway.store.sqlite.own_files import OwnFiles
from gateway.store.sqlite.vacuum import Vacuum


class Writer(Worker[SQLiteDatabase]):
    """Owns the writing connection."""

    max_batch = 512

    def __init__(self, path: Path, *, timeout_seconds: float, max_pending: int) -> None:
        super().__init__("store-writer", timeout_seconds=timeout_seconds, max_pending=max_pending)
        self.bounds = SumBounds()
        self.commits = 0
        self._path = path
        self._synchronous = ""
        self._vacuum = Vacuum()
        self._files: OwnFiles | None = None
        self._drops_cache = False
        self.creates = True
        """Whether opening creates a file that does not exist."""
        self.is_new = False
        """Whether the store was empty when it was opened."""

    def drop_cache(self) -> None:
        """Read pages from the file again, from the next transaction on."""
        self._drops_cache = True

    def _open(self) -> SQLiteDatabase:
        self._synchronous = ""
        # An earlier process can have been killed before it had finished.
        self._vacuum.begin()
        connection, migration = open_for_writing(self._path, self._timeout_seconds, create=self.creates)
        self.is_new = migration.is_new
        # The schema has been read, so SQLite has opened its log and its index too.
        self._files = OwnFiles(self._path)
        return SQLiteDatabase(connection, self.bounds)

    def _close(self, db: SQLiteDatabase) -> None:
        db.connection.close()

    def _translated(self, error: Exception) -> Exception:
        return translated(error)

    def _work(self, db: SQLiteDatabase, batch: list[Operation[Any]]) -> None:
        connection = db.connection
        try:
            if self._files is not None:
                self._files.check()
            if self._drops_cache:
                self._drops_cache = False
                connection.execute("PRAGMA shrink_memory")
            # FULL syncs the log at commit, NORMAL only at a checkpoint. The mode cannot be set inside a transaction.
            self._set_synchronous(connection, "FULL" if any(each.durable for each in batch) else "NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            # While BEGIN waited for another process's lock, deadlines can have passed.
            batch = [each for each in batch if not each.abandoned]
            if not all(each.attempt(db) for each in batch):
                roll_back(connection)
                connection.execute("BEGIN IMMEDIATE")
                for each in batch:
                    _attempt_alone(each, db)
            connection.execute("COMMIT")
        except Exception as exc:  # noqa: BLE001  the callers get the error; the thread must go on
            roll_back(connection)
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

    def _idle(self, db: SQLiteDatabase) -> None:
        self._vacuum.step(db.connection)


def _attempt_alone(operation: Operation[Any], db: SQLiteDatabase) -> None:
    db.connection.execute("SAVEPOINT alone")
    if not operation.attempt(db):
        if operation.error is not None and not db.connection.in_transaction:
            # SQLite has rolled back the entire transaction (for example, disk full), so the entire batch has failed.
            raise operation.error
        db.connection.execute("ROLLBACK TO alone")
    db.connection.execute("RELEASE alone")
