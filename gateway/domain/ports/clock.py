"""The clock that services use, so that tests can replace it."""

from collections.abc import Generator
from typing import Any, Protocol


class Wake(Protocol):
    """What ends a sleep early: a future."""

    def done(self) -> bool:
        """Return whether it has ended the sleep."""
        ...

    def set_result(self, result: None, /) -> None:
        """End the sleep."""
        ...

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until it is done."""
        ...


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

    async def sleep_until(self, wake: Wake, seconds: float) -> None:
        """Sleep for `seconds`, or until `wake` is done. The clock sets its result when the time has passed."""
        ...
