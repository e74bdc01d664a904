"""The clock that services use, so that tests can replace it."""

import asyncio
from typing import Protocol


class Clock(Protocol):
    """Reads the time and sleeps."""

    def now(self) -> float:
        """Return the time as seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return a time that never goes back, in seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`."""
        ...

    async def sleep_until(self, wake: asyncio.Future[None], seconds: float) -> None:
        """Sleep for `seconds`, or until `wake` is done. The clock sets its result when the time has passed."""
        ...
