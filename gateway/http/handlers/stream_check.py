"""The probe stream of `gateway check --stream`. It needs no key, so its size, duration and number are limited."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from aiohttp import web

from gateway.errors import RateLimited, Unprocessable, UpstreamUnavailable
from gateway.http import base_url
from gateway.http.keys import CLOCK
from gateway.http.response_body import ClientDisconnected, begin, send
from gateway.http.server import end_with_input
from gateway.http.sse.connection import HEADERS
from gateway.runtime.live import LiveSettings
from gateway.streams.rules import probe
from gateway.streams.rules.probe import Hello
from gateway.streams.settings import StreamSettings

MAX_PROBES: Final = 8
"""Most probe streams open at once. They need no key, so they do not count as other streams. One check opens one."""

_GREETING: Final = b": hi\n\n"
_HEARTBEAT: Final = b":\n\n"
_RETRY_SECONDS: Final = 5
_MAX_ID: Final = 100


class Probes:
    """Tracks open probe streams, limits their number, and closes them at shutdown."""

    def __init__(self, settings: LiveSettings[StreamSettings]) -> None:
        self._settings = settings
        self._tasks: set[asyncio.Task[object]] = set()
        self.closing = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """Register the current task's stream. Raise `RateLimited`, or `UpstreamUnavailable` during shutdown."""
        if self.closing:
            raise UpstreamUnavailable("The gateway is shutting down.", retry_after=_RETRY_SECONDS)
        if len(self._tasks) >= MAX_PROBES:
            raise RateLimited("Too many probe streams are open.", retry_after=_RETRY_SECONDS)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            yield
        finally:
            self._tasks.discard(task)

    @property
    def heartbeat_seconds(self) -> float:
        """Longest time without data on a stream."""
        return self._settings.value.heartbeat_seconds

    @property
    def open(self) -> int:
        """Number of open probe streams."""
        return len(self._tasks)

    def end(self) -> None:
        """Refuse new probe streams and cancel the open ones."""
        self.closing = True
        for task in self._tasks:
            task.cancel()


PROBES = web.AppKey("probes", Probes)


async def check_stream(request: web.Request) -> web.StreamResponse:
    """Handle `GET /v1/streams/check?seconds=N`: send events at known times, then only heartbeats for N seconds."""
    seconds = _seconds(request)
    probes = request.app[PROBES]
    first = probe.hello(
        Hello(
            base=base_url.base_of(request),
            http=f"{request.version.major}.{request.version.minor}",
            after=_last_event_id(request),
            heartbeat_seconds=probes.heartbeat_seconds,
        )
    )
    if request.method == "HEAD":
        return web.StreamResponse(headers=HEADERS)
    with probes.place():
        response = web.StreamResponse(headers=HEADERS)
        try:
            end_with_input(request)
            await begin(request, response)
            await send(request, response, _GREETING + first.raw)
            await _send_events(request, response, seconds)
        except asyncio.CancelledError:
            if not probes.closing:
                raise
        except (ClientDisconnected, ConnectionError):
            return response
        with suppress(ConnectionError):
            await response.write_eof()
        return response


async def _send_events(request: web.Request, response: web.StreamResponse, seconds: float) -> None:
    clock, heartbeat = request.app[CLOCK], request.app[PROBES].heartbeat_seconds
    started = clock.monotonic()
    for number in range(1, probe.EVENTS):
        await clock.sleep(probe.SPACING_SECONDS)
        await send(request, response, probe.tick(number, clock.monotonic() - started).raw)
    if seconds:
        end = clock.monotonic() + seconds
        while (left := end - clock.monotonic()) > heartbeat:
            await clock.sleep(heartbeat)
            await send(request, response, _HEARTBEAT)
        await clock.sleep(left)
        await send(request, response, probe.tick(probe.EVENTS, clock.monotonic() - started).raw)
    await send(request, response, probe.done().raw)


def _seconds(request: web.Request) -> float:
    given = request.query.get("seconds", "0")
    if not (given.isascii() and given.isdigit() and len(given) <= 4 and int(given) <= probe.MAX_SECONDS):
        text = f"seconds must be a whole number from 0 to {probe.MAX_SECONDS}"
        raise Unprocessable.field("seconds", text)
    return float(given)


def _last_event_id(request: web.Request) -> str | None:
    value = request.headers.get("Last-Event-ID")
    return value if value and value.isascii() and value.isprintable() and len(value) <= _MAX_ID else None
