"""How slowly a request body may arrive: a bound on its silence, and a least rate (docs/architecture.md, Invariants 14).

A slow body that keeps coming is taken whole, however long it takes. One that stops, or that sends a byte now and then
to hold its connection, is given up.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from gateway.errors import BadRequest
from gateway.http.keys import SETTINGS


class BodyPace:
    """The time that one body may take. Only time spent in `waiting` counts."""

    def __init__(self, request: web.Request) -> None:
        settings = request.app[SETTINGS].value
        self._idle_seconds = settings.body_idle_seconds
        self._least_rate = settings.body_min_bytes_per_second
        self._waited = 0.0
        self._received = 0

    def received(self, size: int) -> None:
        """Count bytes that have arrived."""
        self._received += size

    @property
    def patience(self) -> float:
        """Longest time in seconds to wait for the next bytes. Not positive if the body is below the least rate."""
        return min(self._idle_seconds, self._idle_seconds + self._received / self._least_rate - self._waited)

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Wait for bytes of the body within the context. Raise `BadRequest` if they do not arrive in time."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with asyncio.timeout(self.patience):
                yield
        except TimeoutError as exc:
            raise BadRequest(
                f"The request's body was not complete in time: nothing arrived for {self._idle_seconds:g} seconds, or "
                f"it arrived at fewer than {self._least_rate} bytes per second."
            ) from exc
        finally:
            self._waited += loop.time() - started
