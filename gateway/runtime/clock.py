"""The system clock. Services read the time and sleep through the `Clock` port, so that tests can control both."""

import asyncio
import time

from gateway.domain.ports.clock import Wake


class SystemClock:
    """The operating system's clock."""

    def now(self) -> float:
        """Return the time as seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return a time in seconds that never goes back, for measuring durations."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`."""
        await asyncio.sleep(seconds)

    async def sleep_until(self, wake: Wake, seconds: float) -> None:
        """Sleep for `seconds`, or until `wake` is done."""
        timer = asyncio.get_running_loop().call_later(seconds, _set, wake)
        try:
            await wake
        finally:
            timer.cancel()


def uptime() -> float:
    """Return a time in seconds that never goes back, and that also counts while the machine sleeps, where it can."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _set(wake: Wake) -> None:
    if not wake.done():
        wake.set_result(None)
