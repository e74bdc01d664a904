"""The one place that starts tasks. Every service that has background work owns a `Tasks` and closes it.

An exception of a task is raised in every waiter. If nothing waits for the task, it is logged, so none is lost.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

import msgspec

from gateway.errors import GatewayError

logger = logging.getLogger(__name__)

T = TypeVar("T")
Work = Coroutine[Any, Any, T]


class _Call(msgspec.Struct, eq=False):
    """A task, and how many wait for its result."""

    task: asyncio.Task[Any]
    key: Hashable = None
    waiters: int = 0
    is_delivered: bool = False

    async def result(self) -> Any:
        """Wait for the result. Cancelling the waiter leaves the task running."""
        self.waiters += 1
        try:
            return await asyncio.shield(self.task)
        except Exception:
            self.is_delivered = True
            raise
        except asyncio.CancelledError:
            # The last waiter may be cancelled in the same turn of the loop in which the task fails.
            if self.waiters == 1 and not self.is_delivered and self.task.done():
                _log_failure(self)
            raise
        finally:
            self.waiters -= 1


class Tasks:
    """The tasks of one service."""

    def __init__(self) -> None:
        self._calls: dict[asyncio.Task[Any], _Call] = {}
        self._by_key: dict[Hashable, _Call] = {}

    def spawn(self, work: Work[T], name: str) -> asyncio.Task[T]:
        """Start work that nobody has to wait for. Its exception is logged under `name`."""
        return self._start(work, name, None).task

    def run_to_completion(self, work: Work[T], name: str) -> Work[T]:
        """Start work and return what waits for its result. It goes on when the waiter is cancelled."""
        return self._start(work, name, None).result()

    async def single_flight(self, key: Hashable, factory: Callable[[], Work[T]], name: str) -> T:
        """Join the running call of this key, or start one. It goes on when a waiter is cancelled.

        Every waiter gets the same result or exception. A call that has ended is not joined.
        """
        call = self._by_key.get(key)
        if call is None:
            call = self._by_key[key] = self._start(factory(), name, key)
        result: T = await call.result()
        return result

    def forget_flights(self) -> None:
        """Let the next `single_flight` of every key start a new call. Calls that run go on."""
        self._by_key.clear()

    async def close(self, grace_seconds: float | None = None) -> None:
        """Wait for what runs, and for what that starts. After `grace_seconds`, cancel the rest and wait for it."""
        loop = asyncio.get_running_loop()
        ends_at = None if grace_seconds is None else loop.time() + grace_seconds
        while self._calls:
            left = None if ends_at is None else max(0.0, ends_at - loop.time())
            _, late = await asyncio.wait(set(self._calls), timeout=left)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _start(self, work: Work[Any], name: str, key: Hashable) -> _Call:
        task = asyncio.create_task(work, name=name)
        self._calls[task] = call = _Call(task, key)
        task.add_done_callback(self._on_done)
        return call

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        call = self._calls.pop(task)
        if call.key is not None and self._by_key.get(call.key) is call:
            del self._by_key[call.key]
        if not call.waiters and not call.is_delivered:
            _log_failure(call)


def _log_failure(call: _Call) -> None:
    """Log the exception of a task that nobody waits for, if it has one."""
    if call.task.cancelled() or (error := call.task.exception()) is None:
        return
    call.is_delivered = True
    extra = {"task": call.task.get_name()}
    if isinstance(error, GatewayError):
        logger.warning("a background task failed", extra=extra | {"reason": error.detail})
    else:
        logger.error("a background task crashed", extra=extra, exc_info=error)


async def run_until_first(*works: Work[Any]) -> None:
    """Run coroutines at once until one of them ends; cancel the others and wait for them.

    Raise the exception of the first in the list that has one.
    """
    tasks = list(map(asyncio.create_task, works))
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result
