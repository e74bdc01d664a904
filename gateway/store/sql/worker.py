"""A thread that owns one SQLite connection and runs operations on it.

Operations wait in a bounded queue. The thread takes all queued ones as one batch, runs them, and passes their results
to the event loop in one call. Every operation has a deadline. When it passes, the caller gets `StoreUnavailable`; an
operation whose batch has not begun by then is not run.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import msgspec

from gateway.errors import StoreUnavailable
from gateway.store.sql.failures import unavailable

T = TypeVar("T")


class Operation(msgspec.Struct, Generic[T], eq=False):
    """One step to run on the connection, and the future for its result."""

    step: Callable[[sqlite3.Connection], T]
    future: asyncio.Future[T]
    deadline: float
    durable: bool
    erases: bool
    abandoned: bool = False
    value: T | None = None
    error: Exception | None = None

    def attempt(self, db: sqlite3.Connection) -> bool:
        """Run the step; return whether it succeeded."""
        try:
            self.value = self.step(db)
        except Exception as exc:  # noqa: BLE001  the caller gets the error; the thread must go on
            self.error = exc
        else:
            self.error = None
        return self.error is None


class Worker:
    """The thread, its queue and the deadlines. Subclasses open the connection and run batches."""

    max_batch = 1
    """Bounded, so that the first operation of a burst does not wait for all of them."""

    def __init__(self, name: str, *, timeout_seconds: float, max_pending: int) -> None:
        self.pending = 0
        """Number of operations that are queued or in progress."""
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._max_pending = max_pending
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: SimpleQueue[Operation[Any] | None] = SimpleQueue()
        # In order of submission, which is also the order of the deadlines.
        self._submitted: deque[Operation[Any]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[None] | None = None
        self.on_answered: Callable[[str, float], None] = lambda _result, _seconds: None
        """Called for every finished operation with `done`, `failed` or `late`, and the seconds since its submission."""
        self.on_failed: Callable[[Exception], None] = lambda _error: None
        """Called with the error of every operation that failed."""

    async def start(self) -> None:
        """Start the thread and wait until it has opened its connection. Raise what opening raises."""
        if self._ended is not None:
            return
        self._loop = asyncio.get_running_loop()
        self._queue = SimpleQueue()
        self._ended = self._loop.create_future()
        opened: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(
            target=self._run, args=(self._loop, self._queue, opened, self._ended), name=self._name, daemon=True
        ).start()
        try:
            await opened
        except BaseException:
            self._loop = self._ended = None
            self._queue.put(None)
            raise

    async def stop(self) -> None:
        """Finish the queued operations, then end the thread."""
        ended = self._ended
        if ended is None:
            return
        if self._loop is not None:
            self._loop = None
            self._queue.put(None)
        await asyncio.shield(ended)
        self._ended = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def submit(
        self, step: Callable[[sqlite3.Connection], T], *, durable: bool = False, erases: bool = False
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
                operation.future.set_exception(StoreUnavailable("The store did not answer in time.", retry_after=1))
        self._timer = loop.call_at(self._submitted[0].deadline, self._expire, loop) if self._submitted else None

    def _deliver(self, operations: list[Operation[Any]]) -> None:
        self.pending -= len(operations)
        now = asyncio.get_running_loop().time()
        for operation in operations:
            if not operation.abandoned:
                result = "done" if operation.error is None else "failed"
                self.on_answered(result, now - operation.deadline + self._timeout_seconds)
            if operation.error is not None:
                self.on_failed(operation.error)
            if operation.future.done():
                continue
            if operation.error is not None:
                operation.future.set_exception(_translated(operation.error))
            else:
                operation.future.set_result(operation.value)
        while self._submitted and self._submitted[0].future.done():
            self._submitted.popleft()

    # The methods below run in the thread.

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
            _call_on_loop(loop, _fail, opened, _translated(exc))
            return
        _call_on_loop(loop, _succeed, opened)
        while batch := self._next_batch(db, queue):
            operations = [each for each in batch if each is not None]
            if operations:
                self._work(db, operations)
                _call_on_loop(loop, self._deliver, operations)
            if len(operations) < len(batch):
                break
        with suppress(sqlite3.Error):
            db.close()
        _call_on_loop(loop, _succeed, ended)

    def _next_batch(
        self, db: sqlite3.Connection, queue: SimpleQueue[Operation[Any] | None]
    ) -> list[Operation[Any] | None]:
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

    def _open(self) -> sqlite3.Connection:
        raise NotImplementedError

    def _work(self, db: sqlite3.Connection, batch: list[Operation[Any]]) -> None:
        """Attempt every operation of the batch. Must not raise."""
        raise NotImplementedError

    def _idle_seconds(self) -> float | None:
        """Return the seconds without an operation after which `_idle` is called; `None` for never."""
        return None

    def _idle(self, db: sqlite3.Connection) -> None:
        """Do background work while the queue is empty."""


def _translated(error: Exception) -> Exception:
    return unavailable(error) if isinstance(error, sqlite3.Error) else error


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
