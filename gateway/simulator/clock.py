"""The simulator's clock: wall-clock time that tests can advance, and waits that `speed` shortens."""

import asyncio
import time
from collections.abc import Callable

# Shorter sleeps cost more than they wait, so they are accumulated.
_SHORTEST_SLEEP_SECONDS = 0.001


class SimulatorClock:
    """Clock in epoch seconds. `advance` moves it forward and notifies the watchers."""

    def __init__(self, speed: float = 1.0) -> None:
        if speed <= 0:
            raise ValueError(f"speed: expected a number above 0, got {speed:g} (for example: 2.0)")
        self.speed = speed
        self._offset = 0.0
        self._last_us = 0
        self._watchers: list[Callable[[], None]] = []

    def now(self) -> float:
        """Return the epoch time in seconds."""
        return time.time() + self._offset

    def stamp(self) -> int:
        """Return the epoch time in microseconds. Values are unique, so they can order a list."""
        self._last_us = max(self._last_us + 1, int(self.now() * 1_000_000))
        return self._last_us

    def advance(self, seconds: float) -> None:
        """Move the time forward and notify the watchers, which drop expired data."""
        if seconds < 0:
            raise ValueError(f"advance: expected seconds of 0 or more, got {seconds:g}")
        self._offset += seconds
        for watcher in self._watchers:
            watcher()

    def reset(self) -> None:
        """Return to wall-clock time."""
        self._offset = 0.0

    def on_advance(self, watcher: Callable[[], None]) -> None:
        """Call `watcher` after every `advance`."""
        self._watchers.append(watcher)

    def real(self, seconds: float) -> float:
        """Convert seconds of simulated time to real seconds."""
        return seconds / self.speed

    async def sleep(self, seconds: float) -> None:
        """Wait `seconds` of simulated time."""
        await asyncio.sleep(self.real(seconds))


class Pace:
    """Waits of a job. Short waits are accumulated: a thousand tokens at high speed need only a few sleeps."""

    __slots__ = ("_clock", "_due")

    def __init__(self, clock: SimulatorClock) -> None:
        self._clock = clock
        self._due = time.monotonic()

    async def wait(self, seconds: float) -> None:
        """Wait until `seconds` after the end of the previous wait."""
        self._due += self._clock.real(seconds)
        ahead = self._due - time.monotonic()
        if ahead > _SHORTEST_SLEEP_SECONDS:
            await asyncio.sleep(ahead)
        elif ahead < -1.0:
            self._due = time.monotonic()  # far behind (a busy machine): do not try to catch up
            await asyncio.sleep(0)
