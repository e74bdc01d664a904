"""The probe stream, for `gateway check --stream`: open to everybody, so short, small and few at once."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from aiohttp import web

from gateway.errors import RateLimited, Unprocessable, UpstreamUnavailable
from gateway.http import base_url
from gateway.http.keys import CLOCK
from gateway.http.response_body import CallerLeft, send
from gateway.http.sse.connection import HEADERS
from gateway.runtime.live import LiveSettings
from gateway.streams.rules import probe
from gateway.streams.rules.probe import Hello
from gateway.streams.settings import StreamSettings

MAX_PROBES: Final = 8
"""How many may be open at once. They need no key, so they get no share of what streams may take; a check opens one."""

_GREETING: Final = b": hi\n\n"
_HEARTBEAT: Final = b":\n\n"
_RETRY_SECONDS: Final = 5
_LONGEST_ID: Final = 100


class Probes:
    """The probe streams that are open: few, and ended together at shutdown."""

    def __init__(self, settings: LiveSettings[StreamSettings]) -> None:
        self._settings = settings
        self._tasks: set[asyncio.Task[object]] = set()
        self.closing = False

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for the current task's. Raise `RateLimited`, or `UpstreamUnavailable` at the gateway's end."""
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
        """Longest silence on a stream."""
        return self._settings.value.heartbeat_seconds

    @property
    def open(self) -> int:
        """How many are open."""
        return len(self._tasks)

    def end(self) -> None:
        """End them all."""
        self.closing = True
        for task in self._tasks:
            task.cancel()


PROBES = web.AppKey("probes", Probes)


async def check_stream(request: web.Request) -> web.StreamResponse:
    """`GET /v1/streams/check?seconds=N`: a few events at known times, then silence with heartbeats for N seconds."""
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
    with probes.place():
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        try:
            await send(request, response, _GREETING + first.raw)
            await _go_on(request, response, seconds)
        except asyncio.CancelledError:
            if not probes.closing:
                raise
        except (CallerLeft, ConnectionError):
            return response
        with suppress(ConnectionError):
            await response.write_eof()
        return response


async def _go_on(request: web.Request, response: web.StreamResponse, seconds: float) -> None:
    clock, heartbeat = request.app[CLOCK], request.app[PROBES].heartbeat_seconds
    began = clock.monotonic()
    for number in range(1, probe.EVENTS):
        await clock.sleep(probe.SPACING_SECONDS)
        await send(request, response, probe.tick(number, clock.monotonic() - began).raw)
    if seconds:
        end = clock.monotonic() + seconds
        while (left := end - clock.monotonic()) > heartbeat:
            await clock.sleep(heartbeat)
            await send(request, response, _HEARTBEAT)
        await clock.sleep(left)
        await send(request, response, probe.tick(probe.EVENTS, clock.monotonic() - began).raw)
    await send(request, response, probe.done().raw)


def _seconds(request: web.Request) -> float:
    given = request.query.get("seconds", "0")
    if not (given.isascii() and given.isdigit() and len(given) <= 4 and int(given) <= probe.LONGEST_SECONDS):
        text = f"seconds must be a whole number from 0 to {probe.LONGEST_SECONDS}"
        raise Unprocessable.field("seconds", text)
    return float(given)


def _last_event_id(request: web.Request) -> str | None:
    value = request.headers.get("Last-Event-ID")
    return value if value and value.isascii() and value.isprintable() and len(value) <= _LONGEST_ID else None
