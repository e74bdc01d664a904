"""Time, as services read and sleep it."""

from typing import Protocol


class Clock(Protocol):
    """Time, read and slept."""

    def now(self) -> float:
        """Return the time as seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return a time that never goes back, in seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...
