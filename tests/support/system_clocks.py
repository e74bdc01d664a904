"""The system's clock, moved forward or stopped by the test."""

import asyncio

from gateway.runtime.clock import SystemClock
from gateway.simulator import Simulator


class AdvancingClock(SystemClock):
    """The system's clock, advanced by the test together with upstream's; sleepers wake when their time has come."""

    def __init__(self, upstream: Simulator | None = None) -> None:
        self.by = 0.0
        self._upstream = upstream

    def advance(self, seconds: float) -> None:
        """Move the time forward."""
        self.by += seconds
        if self._upstream is not None:
            self._upstream.clock.advance(seconds)

    def now(self) -> float:
        return super().now() + self.by

    def monotonic(self) -> float:
        return super().monotonic() + self.by

    async def sleep(self, seconds: float) -> None:
        end = self.monotonic() + seconds
        while (left := end - self.monotonic()) > 0:
            # Short, so that an advance made meanwhile is noticed.
            await asyncio.sleep(min(left, 0.02))

    async def sleep_until(self, wake: asyncio.Future[None], seconds: float) -> None:
        end = self.monotonic() + seconds
        while (left := end - self.monotonic()) > 0 and not wake.done():
            await asyncio.wait({wake}, timeout=min(left, 0.02))


class ShiftedClock(SystemClock):
    """The system's clock plus a shift; sleepers do not notice the shift."""

    def __init__(self) -> None:
        self.shift = 0.0

    def now(self) -> float:
        return super().now() + self.shift

    def monotonic(self) -> float:
        return super().monotonic() + self.shift


class PausedClock(SystemClock):
    """The system's clock with a monotonic time that stands still: no bucket fills and no hold ends by itself.

    Sleeps take real time.
    """

    def __init__(self) -> None:
        self._stands_at: float | None = super().monotonic()
        self._shift = 0.0

    def advance(self, seconds: float) -> None:
        """Move the time forward. It stands still there."""
        assert self._stands_at is not None
        self._stands_at += seconds

    def resume(self) -> None:
        """Let the time go on from where it stands."""
        assert self._stands_at is not None
        self._shift = self._stands_at - super().monotonic()
        self._stands_at = None

    def monotonic(self) -> float:
        return super().monotonic() + self._shift if self._stands_at is None else self._stands_at
