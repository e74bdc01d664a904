"""Threads that run steps on PostgreSQL, each on its own connection: one step is one transaction.

A step runs at READ COMMITTED, with the locks that it takes (`locks.py`). A step that met another one's key, or waited
for one that waited for it, is rolled back and runs again. A step whose connection is lost during its commit is done if
it was committed, and else runs again (`commits.py`).

A connection that is lost is opened again, forever: a short outage delays a step, a longer one fails it at once. A
thread that cannot connect while others of its lane are connected, because the server allows no more connections, leaves
the work to them.
"""

import time
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import psycopg

from gateway.errors import StoreAway, StoreUnavailable
from gateway.store.postgres.connection import Address
from gateway.store.postgres.database import NodeIdentity, PostgresDatabase, ReadingDatabase, SeveralStatements
from gateway.store.postgres.failures import is_read_only, retry_cause, translated
from gateway.store.sql.database import SumBounds
from gateway.store.sql.worker import LATE, Operation, Worker

_ATTEMPTS: Final = 6
"""How often a step runs: the first time, and five times more."""
_AFTER_A_MEETING: Final = 0.01
"""Seconds before a step that met another one runs again; each time longer."""
_MOVES: Final = 3
"""How often a step looks for another server because this one takes no writes."""
_BRIDGED_SECONDS: Final = 1.0
"""An outage of this length is waited for. Later steps fail as soon as an attempt to connect has failed."""
_SHORTEST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5

LaneDatabaseT = TypeVar("LaneDatabaseT", bound=PostgresDatabase)


class _Lane(Worker[LaneDatabaseT]):
    """Connects, and fails steps while it cannot."""

    def __init__(self, name: str, address: Address, *, max_pending: int, threads: int) -> None:
        super().__init__(name, timeout_seconds=address.timeout_seconds, max_pending=max_pending, threads=threads)
        self._address = address
        self._databases: list[LaneDatabaseT] = []

    def _open(self) -> LaneDatabaseT:
        made = self._new_database()
        self._databases.append(made)
        return made

    def _new_database(self) -> LaneDatabaseT:
        raise NotImplementedError

    def _close(self, db: LaneDatabaseT) -> None:
        db.close()

    def late(self) -> StoreUnavailable:
        """Return the error of an operation whose deadline has passed."""
        return StoreAway(LATE, retry_after=1)

    def _translated(self, error: Exception) -> Exception:
        return translated(error)

    def _next_batch(self, db: LaneDatabaseT, queue: SimpleQueue[Operation[Any] | None]) -> list[Operation[Any] | None]:
        while db.lost_at is not None and self._leaves_work(db):
            try:
                db.open()
            except psycopg.Error:
                time.sleep(_LONGEST_PAUSE)
        batch = super()._next_batch(db, queue)
        if batch[-1] is None:
            # Something may have been left to others that had ended.
            rest = [queue.get_nowait() for _ in range(queue.qsize())]
            batch[:0] = [each for each in rest if each is not None]
            for _ in range(rest.count(None)):
                queue.put(None)
        return batch

    def _leaves_work(self, db: LaneDatabaseT) -> bool:
        """Whether other threads are connected, so that one that is not leaves the work to them."""
        return not self.is_stopping and any(each.is_open for each in self._databases if each is not db)

    def _work(self, db: LaneDatabaseT, batch: list[Operation[Any]]) -> None:
        for operation in tuple(batch):
            try:
                if not db.is_open and self._leaves_work(db):
                    try:
                        db.open()
                    except psycopg.Error:
                        batch.remove(operation)
                        self._queue.put(operation)
                        continue
                if self._connected(db, operation):
                    self._run_step(db, operation)
            except Exception as exc:  # noqa: BLE001  the caller gets the error; the thread must go on
                operation.error = exc
                db.roll_back()

    def _run_step(self, db: LaneDatabaseT, operation: Operation[Any]) -> None:
        raise NotImplementedError

    def _connected(self, db: LaneDatabaseT, operation: Operation[Any]) -> bool:
        """Connect if necessary. If that fails for longer than a moment, set the operation's error."""
        pause = _SHORTEST_PAUSE
        while True:
            if operation.abandoned:
                operation.error = self.late()
                return False
            try:
                db.open()
            except psycopg.Error as exc:
                operation.error = exc
                if db.has_been_lost_for(_BRIDGED_SECONDS):
                    return False
            else:
                return True
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


class _NotCommitted(Exception):
    """The connection was lost during the commit, and nothing was committed."""


class WritingLane(_Lane[PostgresDatabase]):
    """Runs steps that write."""

    def __init__(
        self,
        name: str,
        address: Address,
        *,
        max_pending: int,
        threads: int,
        is_relaxed: bool,
        database: type[PostgresDatabase],
        identity: NodeIdentity,
        bounds: SumBounds,
    ) -> None:
        super().__init__(name, address, max_pending=max_pending, threads=threads)
        self._bounds = bounds
        self._is_relaxed = is_relaxed
        self._database = database
        self._identity = identity

    def _new_database(self) -> PostgresDatabase:
        return self._database(partial(self._address.connect, is_relaxed=self._is_relaxed), self._identity, self._bounds)

    def _run_step(self, db: PostgresDatabase, operation: Operation[Any]) -> None:
        attempts = moves = 0
        while self._begun(db, operation):
            is_undone = False
            try:
                if operation.attempt(db) and self._committed(db, operation):
                    return
            except _NotCommitted:
                is_undone = True
            is_lost = db.is_lost
            db.roll_back()
            if is_read_only(operation.error) and moves < _MOVES:
                # A new connection may find the server that is the primary now.
                moves += 1
                db.close()
                time.sleep(_LONGEST_PAUSE)
                is_lost = True
            if is_lost or is_undone:
                if is_lost:
                    operation.retries.append("connection")
                # Only the step's deadline bounds how often that happens.
                if not self._connected(db, operation):
                    return
                continue
            attempts += 1
            cause = retry_cause(operation.error)
            if attempts == _ATTEMPTS or cause is None:
                return
            operation.retries.append(cause)
            # At once, it could take again what the step that it has met waits for.
            time.sleep(attempts * _AFTER_A_MEETING)

    def _committed(self, db: PostgresDatabase, operation: Operation[Any]) -> bool:
        """Commit. Raise `_NotCommitted` if the connection was lost and another one found nothing committed."""
        if operation.abandoned:
            # Its caller got an error: it may not have been done.
            operation.error = self.late()
            return False
        try:
            db.commit()
        except psycopg.Error as exc:
            operation.error = exc
            if not db.is_lost:
                return False
            operation.retries.append("commit")
            if not self._was_committed(db):
                operation.error = StoreUnavailable("The store's database was lost during a commit.", retry_after=1)
                raise _NotCommitted from exc
            operation.error = None
        return True

    def _was_committed(self, db: PostgresDatabase) -> bool:
        """Find out, for as long as it takes, whether the last step was committed when its connection was lost.

        That goes on after the caller's deadline, so that the step is not committed later. Raise `psycopg.Error` if the
        lane stops and the database does not answer.
        """
        step, pause, stopping_since = db.step, _SHORTEST_PAUSE, 0.0
        while True:
            try:
                db.open()
                return db.was_committed(step)
            except psycopg.Error:
                db.roll_back()
                if db.is_lost:
                    db.close()
                if self.is_stopping:
                    stopping_since = stopping_since or time.monotonic()
                    if time.monotonic() - stopping_since > _BRIDGED_SECONDS:
                        raise
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _begun(self, db: PostgresDatabase, operation: Operation[Any]) -> bool:
        """Begin a transaction. An idle connection may have been lost, which shows here, where nothing was done yet."""
        pause = 0.0
        while True:
            try:
                db.begin()
                break
            except psycopg.Error:
                db.close()
                time.sleep(pause)
                pause = min(2 * pause + _SHORTEST_PAUSE, _LONGEST_PAUSE)
                if not self._connected(db, operation):
                    return False
        if operation.abandoned:
            operation.error = self.late()
            db.roll_back()
            return False
        return True


class ReadingLane(_Lane[ReadingDatabase]):
    """Runs steps that only read."""

    def __init__(self, address: Address, *, max_pending: int, threads: int, identity: NodeIdentity) -> None:
        super().__init__("store-reader", address, max_pending=max_pending, threads=threads)
        self._identity = identity
        # The code of steps that were seen to have several statements.
        self._several: set[object] = set()

    def _new_database(self) -> ReadingDatabase:
        return ReadingDatabase(self._address.connect, self._identity)

    def _run_step(self, db: ReadingDatabase, operation: Operation[Any]) -> None:
        if operation.future.done():
            return
        self._read(db, operation)
        while isinstance(operation.error, psycopg.Error) and db.is_lost and self._connected(db, operation):
            operation.retries.append("connection")
            self._read(db, operation)

    def _read(self, db: ReadingDatabase, operation: Operation[Any]) -> None:
        code = getattr(operation.step, "__code__", operation.step)
        # Behind a pooler, a statement needs a transaction for its deadline.
        if code not in self._several and not self._address.is_pooled:
            db.begin_single()
            operation.attempt(db)
            if not isinstance(operation.error, SeveralStatements):
                return
            self._several.add(code)
        try:
            db.begin_snapshot()
            if operation.attempt(db):
                db.commit()
        except psycopg.Error as exc:
            operation.error = exc
        if operation.error is not None:
            db.roll_back()
