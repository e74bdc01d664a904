"""A clock that a test advances."""

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING

from gateway.domain.ports.clock import Clock, Wake

START = 1_764_000_000.0
_TURNS = 50


async def settle() -> None:
    """Run everything that can run without time passing: until nothing else is ready, or for fifty turns."""
    ready = getattr(asyncio.get_running_loop(), "_ready", None)
    for _ in range(_TURNS):
        await asyncio.sleep(0)
        if ready is not None and not ready:
            return


class ManualClock:
    """A clock that moves only in `advance`; sleepers wake in the order of their times."""

    def __init__(self, now: float = START) -> None:
        self._began = now
        self._passed = 0.0
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, Wake]] = []

    def now(self) -> float:
        """Return the time as seconds since the epoch."""
        return self._began + self._passed

    def monotonic(self) -> float:
        """Return the seconds since the test began, from a start of its own, as the machine's clock does."""
        return 1000.0 + self._passed

    async def sleep(self, seconds: float) -> None:
        """Sleep until the test has advanced that much."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        await self.sleep_until(asyncio.get_running_loop().create_future(), seconds)

    async def sleep_until(self, wake: Wake, seconds: float) -> None:
        """Sleep until the test has advanced that much, or `wake` is done."""
        heapq.heappush(self._sleepers, (self._passed + seconds, next(self._order), wake))
        await wake

    @property
    def sleeping(self) -> int:
        """The number of sleepers."""
        return sum(not sleeper.done() for _, _, sleeper in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Advance the time. Each sleeper wakes at its own time and runs as far as it can before the next wakes."""
        end = self._passed + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, sleeper = heapq.heappop(self._sleepers)
            if sleeper.done():
                continue
            self._passed = max(self._passed, due)
            sleeper.set_result(None)
            await settle()
        self._passed = end
        await settle()


if TYPE_CHECKING:
    _: type[Clock] = ManualClock
