"""A thread that owns one connection, and the way there and back.

Operations wait in a queue. The thread takes all that have gathered, works on them as one batch, and hands the outcomes
to the event loop in one call. The queue is bounded, and every operation has a deadline: whoever asked is told in time,
and an operation whose deadline passed before its batch began is not done at all.
"""

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from gateway.errors import StoreUnavailable
from gateway.store.sql.failures import unavailable

T = TypeVar("T")


class Operation(Generic[T]):
    """One step to be done on the connection, and where its outcome goes."""

    __slots__ = ("abandoned", "deadline", "durable", "erases", "error", "future", "step", "value")

    def __init__(
        self,
        step: Callable[[sqlite3.Connection], T],
        future: asyncio.Future[T],
        deadline: float,
        *,
        durable: bool,
        erases: bool,
    ) -> None:
        self.step = step
        self.future = future
        self.deadline = deadline
        self.durable = durable
        self.erases = erases
        self.abandoned = False
        self.value: T | None = None
        self.error: Exception | None = None

    def attempt(self, db: sqlite3.Connection) -> bool:
        """Do the step; say whether it succeeded."""
        try:
            self.value = self.step(db)
        except Exception as exc:  # noqa: BLE001  whoever asked gets it, the thread goes on
            self.error = exc
        else:
            self.error = None
        return self.error is None


class Worker:
    """The thread, its queue, and the deadlines. A subclass says what to open and what to do with a batch."""

    max_batch = 1
    """So that the first of a burst need not wait for all of it."""

    def __init__(self, name: str, *, timeout_seconds: float, max_pending: int) -> None:
        self.pending = 0
        """Operations asked for and not yet answered."""
        self._name = name
        self._timeout_seconds = timeout_seconds
        self._max_pending = max_pending
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: SimpleQueue[Operation[Any] | None] = SimpleQueue()
        # In the order of asking, which is the order of their deadlines.
        self._asked: deque[Operation[Any]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[None] | None = None
        self.on_answered: Callable[[str, float], None] = lambda _result, _seconds: None
        """Told of every answer: `done`, `failed` or `late`, and the seconds since it was asked for."""
        self.on_failed: Callable[[Exception], None] = lambda _error: None
        """Called with the error of every step that failed."""

    async def start(self) -> None:
        """Start the thread and wait until it has opened its connection."""
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
        """Let the thread finish what was asked, and end."""
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
        """Ask for a step. A caller who stops waiting does not stop the step."""
        loop = self._loop
        if loop is None:
            raise StoreUnavailable("The store is closed.", retry_after=1)
        if self.pending >= self._max_pending:
            raise StoreUnavailable("The store has more to do than it can keep up with.", retry_after=1)
        future: asyncio.Future[T] = loop.create_future()
        operation = Operation(step, future, loop.time() + self._timeout_seconds, durable=durable, erases=erases)
        self.pending += 1
        self._asked.append(operation)
        if self._timer is None:
            self._timer = loop.call_at(operation.deadline, self._expire, loop)
        self._queue.put(operation)
        return future

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._asked and (self._asked[0].future.done() or self._asked[0].deadline <= now):
            operation = self._asked.popleft()
            operation.abandoned = True
            if not operation.future.done():
                self.on_answered("late", self._timeout_seconds)
                operation.future.set_exception(StoreUnavailable("The store did not answer in time.", retry_after=1))
        self._timer = loop.call_at(self._asked[0].deadline, self._expire, loop) if self._asked else None

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
                operation.future.set_exception(_plain(operation.error))
            else:
                operation.future.set_result(operation.value)
        while self._asked and self._asked[0].future.done():
            self._asked.popleft()

    # What follows runs in the thread.

    def _run(
        self,
        loop: asyncio.AbstractEventLoop,
        queue: SimpleQueue[Operation[Any] | None],
        opened: asyncio.Future[None],
        ended: asyncio.Future[None],
    ) -> None:
        try:
            db = self._open()
        except Exception as exc:  # noqa: BLE001  whoever opens the store gets it
            _tell(loop, _fail, opened, _plain(exc))
            return
        _tell(loop, _succeed, opened)
        while batch := self._gather(db, queue):
            asked = [each for each in batch if each is not None]
            if asked:
                self._work(db, asked)
                _tell(loop, self._deliver, asked)
            if len(asked) < len(batch):
                break
        with suppress(sqlite3.Error):
            db.close()
        _tell(loop, _succeed, ended)

    def _gather(self, db: sqlite3.Connection, queue: SimpleQueue[Operation[Any] | None]) -> list[Operation[Any] | None]:
        """Wait for something to do, and take with it what else is there. `None` comes last of all."""
        while True:
            try:
                batch = [queue.get(timeout=self._patience())]
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

    def _patience(self) -> float | None:
        """Seconds without an operation after which `_idle` is called; `None` for never."""
        return None

    def _idle(self, db: sqlite3.Connection) -> None:
        """Use a quiet moment."""


def _plain(error: Exception) -> Exception:
    return unavailable(error) if isinstance(error, sqlite3.Error) else error


def _tell(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: Any) -> None:
    """Call on the loop; if that has been closed, nobody waits any more."""
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
