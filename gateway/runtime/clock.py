"""Time as the services see it: read, and slept, through the `Clock` port, so that tests can move it."""

import asyncio
import time


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Return the time as seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return a time that never goes back, for measuring durations in seconds."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        await asyncio.sleep(seconds)
