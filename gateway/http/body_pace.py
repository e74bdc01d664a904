"""How slow a caller may be: a bound on the time without data, and a minimum rate (docs/architecture.md, Invariants 14).

A slow body that keeps coming is taken whole, however long it takes. One that stops, or that sends a byte now and then
to hold its connection, is given up.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.errors import BodyTooSlow
from gateway.http.keys import SETTINGS


class Pace:
    """The time that one body, or download, may take. Only time spent waiting for the client counts."""

    __slots__ = ("_moved", "_waited", "idle_seconds", "minimum_rate")

    def __init__(self, idle_seconds: float, minimum_rate: int) -> None:
        self.idle_seconds = idle_seconds
        """Longest time without data."""
        self.minimum_rate = minimum_rate
        """Bytes per second, after one such time."""
        self._waited = 0.0
        self._moved = 0

    def moved(self, size: int) -> None:
        """Count bytes that have moved."""
        self._moved += size

    def waited(self, seconds: float) -> None:
        """Count time spent waiting."""
        self._waited += seconds

    @property
    def patience(self) -> float:
        """Longest time in seconds to wait for the next bytes. Not positive if the body is below the minimum rate."""
        return min(self.idle_seconds, self.idle_seconds + self._moved / self.minimum_rate - self._waited)

    def refusal(self) -> BodyTooSlow:
        """Return the error for a body that does not keep the pace."""
        return BodyTooSlow(
            f"The request's body was not complete in time: nothing arrived for {self.idle_seconds:g} seconds, or it "
            f"arrived at fewer than {self.minimum_rate} bytes per second."
        )


def pace_of(request: web.Request) -> Pace:
    """Return the pace of a request's body, or of the download that it asked for."""
    settings = request.app[SETTINGS].value
    return Pace(settings.body_idle_seconds, settings.body_min_bytes_per_second)


@asynccontextmanager
async def waiting(pace: Pace) -> AsyncIterator[None]:
    """Wait for bytes of the body within the context. Raise `BodyTooSlow` if they do not arrive in time."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    try:
        async with asyncio.timeout(pace.patience):
            yield
    except TimeoutError as exc:
        raise pace.refusal() from exc
    finally:
        pace.waited(loop.time() - started)
