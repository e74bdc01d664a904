"""The simulator's time: the wall clock, which a test may push forward, and waits that `speed` shortens."""

import asyncio
import time
from collections.abc import Callable

# Below this a timer costs more than it waits; shorter waits are saved up and slept together.
_SHORTEST_SLEEP_SECONDS = 0.001


class SimulatorClock:
    """Tells the time in epoch seconds. `advance` moves it, and tells those who keep things that expire."""

    def __init__(self, speed: float = 1.0) -> None:
        if speed <= 0:
            raise ValueError(f"speed: expected a number above 0, got {speed:g} (for example: 2.0)")
        self.speed = speed
        self._offset = 0.0
        self._last_us = 0
        self._watchers: list[Callable[[], None]] = []

    def now(self) -> float:
        """Tell the epoch time in seconds."""
        return time.time() + self._offset

    def stamp(self) -> int:
        """Tell the epoch time in microseconds, never the same twice, so that a stamp can order a list."""
        self._last_us = max(self._last_us + 1, int(self.now() * 1_000_000))
        return self._last_us

    def advance(self, seconds: float) -> None:
        """Move the time forward, and let what has expired by then expire."""
        if seconds < 0:
            raise ValueError(f"advance: expected seconds of 0 or more, got {seconds:g}")
        self._offset += seconds
        for watcher in self._watchers:
            watcher()

    def reset(self) -> None:
        """Go back to the wall clock."""
        self._offset = 0.0

    def on_advance(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after every `advance`."""
        self._watchers.append(watcher)

    def real(self, seconds: float) -> float:
        """Say how long `seconds` of the service take here."""
        return seconds / self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of the service's time."""
        await asyncio.sleep(self.real(seconds))


class Pace:
    """Waits of one job, saved up until they are worth a timer: a thousand tokens at high speed are a few sleeps."""

    __slots__ = ("_clock", "_due")

    def __init__(self, clock: SimulatorClock) -> None:
        self._clock = clock
        self._due = time.monotonic()

    async def wait(self, seconds: float) -> None:
        """Wait until `seconds` after the end of the wait before."""
        self._due += self._clock.real(seconds)
        ahead = self._due - time.monotonic()
        if ahead > _SHORTEST_SLEEP_SECONDS:
            await asyncio.sleep(ahead)
        elif ahead < -1.0:
            self._due = time.monotonic()  # far behind (a busy machine): do not rush to catch up
            await asyncio.sleep(0)
