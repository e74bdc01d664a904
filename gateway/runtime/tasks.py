"""Work that must not be torn when its caller goes away: tasks that a service holds, and awaits when it closes."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


class Tasks:
    """The tasks of one service."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[object]] = set()

    async def to_the_end(self, work: Coroutine[object, object, T]) -> T:
        """Do work and wait for it; it goes on when the waiter leaves."""
        task = asyncio.create_task(work)
        self._hold(task)
        return await asyncio.shield(task)

    def in_background(self, work: Coroutine[object, object, object]) -> None:
        """Do work that nobody waits for."""
        self._hold(asyncio.create_task(work))

    def _hold(self, task: "asyncio.Task[T]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, grace_seconds: float | None = None) -> None:
        """Finish what is under way; what takes longer than `grace_seconds` is cancelled."""
        while self._tasks:
            _, late = await asyncio.wait(set(self._tasks), timeout=grace_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            if late:
                return
