"""Threads that own a database connection each and run operations on it.

Operations wait in a bounded queue. A thread takes queued ones as one batch, runs them, and passes their results to the
event loop in one call. Every operation has a deadline. When it passes, the caller gets `StoreUnavailable`; an
operation whose batch has not begun by then is not run.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import msgspec

from gateway.errors import StoreUnavailable
from gateway.store.sql.connections import Lane
from gateway.store.sql.database import Database

T = TypeVar("T")
DatabaseT = TypeVar("DatabaseT", bound=Database)


LATE = "The store did not answer in time."


class Operation(msgspec.Struct, Generic[T], eq=False):
    """One step to run on a connection, and the future for its result."""

    step: Callable[[Database], T]
    future: asyncio.Future[T]
    deadline: float
    durable: bool
    erases: bool
    abandoned: bool = False
    value: T | None = None
    error: Exception | None = None
    retries: list[str] = []
    """Why it ran again, or its commit was in doubt: `STORE_RETRIES`."""

    def attempt(self, db: Database) -> bool:
        """Run the step; return whether it succeeded."""
        try:
            self.value = self.step(db)
        except Exception as exc:  # noqa: BLE001  the caller gets the error; the thread must go on
            self.error = exc
        else:
            self.error = None
        return self.error is None


class Worker(Generic[DatabaseT]):
    """The threads, their queue and the deadlines. Subclasses open the connections and run batches."""

    max_batch = 1
    """Bounded, so that the first operation of a burst does not wait for all of them."""

    def __init__(self, name: str, *, timeout_seconds: float, max_pending: int, threads: int = 1) -> None:
        self.pending = 0
        """Number of operations that are queued or in progress."""
        self._name = name
        self._threads = threads
        self._timeout_seconds = timeout_seconds
        self._max_pending = max_pending
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: SimpleQueue[Operation[Any] | None] = SimpleQueue()
        # In order of submission, which is also the order of the deadlines.
        self._submitted: deque[Operation[Any]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._ended: list[asyncio.Future[None]] = []
        self.on_answered: Callable[[str, float], None] = lambda _result, _seconds: None
        """Called for every finished operation with `done`, `failed` or `late`, and the seconds since its submission."""
        self.on_failed: Callable[[Exception], object] = lambda _error: None
        """Called with the error of every operation that failed."""
        self.on_retried: Callable[[str], None] = lambda _cause: None
        """Called with the cause of every retry."""

    async def start(self) -> None:
        """Start the threads and wait until they have opened their connections. Raise what opening raises."""
        if self._ended:
            return
        self._loop = loop = asyncio.get_running_loop()
        self._queue = SimpleQueue()
        opened: list[asyncio.Future[None]] = []
        for _ in range(self._threads):
            opened.append(loop.create_future())
            self._ended.append(loop.create_future())
            threading.Thread(
                target=self._run,
                args=(loop, self._queue, opened[-1], self._ended[-1]),
                name=self._name,
                daemon=True,
            ).start()
        try:
            await asyncio.gather(*opened)
        except BaseException:
            self._loop = None
            self._ended = []
            self._end_threads()
            raise

    async def stop(self) -> None:
        """Finish the queued operations, then end the threads."""
        if not self._ended:
            return
        if self._loop is not None:
            self._loop = None
            self._end_threads()
        await asyncio.shield(asyncio.gather(*self._ended))
        self._ended = []
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def late(self) -> StoreUnavailable:
        """Return the error of an operation whose deadline has passed."""
        return StoreUnavailable(LATE, retry_after=1)

    @property
    def is_stopping(self) -> bool:
        """Whether no more operations are accepted."""
        return self._loop is None

    def _end_threads(self) -> None:
        for _ in range(self._threads):
            self._queue.put(None)

    def submit(
        self,
        step: Callable[[Database], T],
        *,
        durable: bool = False,
        erases: bool = False,
        lane: Lane = Lane.DECIDE,  # noqa: ARG002  chosen before, where there are several
    ) -> asyncio.Future[T]:
        """Queue a step and return the future of its result. A write whose future is cancelled may still be done.

        Raise `StoreUnavailable` if the worker is stopped or the queue is full.
        """
        loop = self._loop
        if loop is None:
            raise StoreUnavailable("The store is closed.", retry_after=1)
        if self.pending >= self._max_pending:
            raise StoreUnavailable("The store is overloaded.", retry_after=1)
        future: asyncio.Future[T] = loop.create_future()
        operation = Operation(step, future, loop.time() + self._timeout_seconds, durable=durable, erases=erases)
        self.pending += 1
        self._submitted.append(operation)
        if self._timer is None:
            self._timer = loop.call_at(operation.deadline, self._expire, loop)
        self._queue.put(operation)
        return future

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._submitted and (self._submitted[0].future.done() or self._submitted[0].deadline <= now):
            operation = self._submitted.popleft()
            operation.abandoned = True
            if not operation.future.done():
                self.on_answered("late", self._timeout_seconds)
                operation.future.set_exception(self.late())
        self._timer = loop.call_at(self._submitted[0].deadline, self._expire, loop) if self._submitted else None

    def _deliver(self, operations: list[Operation[Any]]) -> None:
        self.pending -= len(operations)
        now = asyncio.get_running_loop().time()
        for operation in operations:
            for cause in operation.retries:
                self.on_retried(cause)
            if not operation.abandoned:
                result = "done" if operation.error is None else "failed"
                self.on_answered(result, now - operation.deadline + self._timeout_seconds)
            if operation.error is not None:
                self.on_failed(operation.error)
            if operation.future.done():
                continue
            if operation.error is not None:
                operation.future.set_exception(self._translated(operation.error))
            else:
                operation.future.set_result(operation.value)
        while self._submitted and self._submitted[0].future.done():
            self._submitted.popleft()

    # The methods below run in a thread.

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        queue: SimpleQueue[Operation[Any] | None],
        opened: asyncio.Future[None],
        ended: asyncio.Future[None],
    ) -> None:
        try:
            db = self._open()
        except Exception as exc:  # noqa: BLE001  the caller of `start` gets the error
            _call_on_loop(loop, _fail, opened, self._translated(exc))
            return
        _call_on_loop(loop, _succeed, opened)
        while batch := self._next_batch(db, queue):
            operations = [each for each in batch if each is not None]
            if operations:
                self._work(db, operations)
                _call_on_loop(loop, self._deliver, operations)
            if len(operations) < len(batch):
                break
        with suppress(Exception):
            self._close(db)
        _call_on_loop(loop, _succeed, ended)

    def _next_batch(self, db: DatabaseT, queue: SimpleQueue[Operation[Any] | None]) -> list[Operation[Any] | None]:
        """Wait for an operation and return it with all others in the queue. `None`, always last, ends the thread."""
        while True:
            try:
                batch = [queue.get(timeout=self._idle_seconds())]
                break
            except Empty:
                self._idle(db)
        while batch[-1] is not None and len(batch) < self.max_batch:
            try:
                batch.append(queue.get_nowait())
            except Empty:
                break
        return batch

    def _open(self) -> DatabaseT:
        raise NotImplementedError

    def _close(self, db: DatabaseT) -> None:
        raise NotImplementedError

    def _work(self, db: DatabaseT, batch: list[Operation[Any]]) -> None:
        """Attempt every operation of the batch. Must not raise."""
        raise NotImplementedError

    def _translated(self, error: Exception) -> Exception:
        """Return the error that a caller gets for an error of a step or of the database."""
        raise NotImplementedError

    def _idle_seconds(self) -> float | None:
        """Return the seconds without an operation after which `_idle` is called; `None` for never."""
        return None

    def _idle(self, db: DatabaseT) -> None:
        """Do background work while the queue is empty."""


def _call_on_loop(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Call a function on the event loop. Do nothing if the loop is closed: then no caller waits."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:
        return


def _succeed(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
