"""The probe stream, for `gateway check --stream`: open to everybody, so short, small and few at once."""

import asyncio
from contextlib import suppress
from typing import Final

from aiohttp import web

from gateway.core import stream_probe
from gateway.core.stream_probe import Hello
from gateway.edge import links
from gateway.edge.keys import CLOCK, METRICS, SETTINGS
from gateway.edge.sending import CallerLeft, send
from gateway.edge.streams import GREETING, HEADERS, HEARTBEAT, OpenStreams
from gateway.errors import Unprocessable

MAX_PROBES: Final = 8
"""How many may be open at once. They need no key, so they get no share of what streams may take; a check opens one."""

PROBES = web.AppKey("probes", OpenStreams)
_NOBODY: Final = ""
_LONGEST_ID: Final = 100


def new_probes() -> OpenStreams:
    """Make what counts them."""
    return OpenStreams(max_total=MAX_PROBES, max_per_team=MAX_PROBES)


async def check_stream(request: web.Request) -> web.StreamResponse:
    """`GET /v1/streams/check?seconds=N`: a few events at known times, then silence with heartbeats for N seconds."""
    seconds = _seconds(request)
    probes, gauge = request.app[PROBES], request.app[METRICS].sse_streams.labels("check")
    first = stream_probe.hello(
        Hello(
            base=links.base_of(request),
            http=f"{request.version.major}.{request.version.minor}",
            after=_last_event_id(request),
            heartbeat_seconds=request.app[SETTINGS].heartbeat_seconds,
        )
    )
    probes.enter(_NOBODY)
    gauge.inc()
    try:
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        try:
            await send(response, GREETING + first.raw)
            await _go_on(request, response, seconds)
        except asyncio.CancelledError:
            if not probes.closing:
                raise
        except (CallerLeft, ConnectionError):
            return response
        with suppress(ConnectionError):
            await response.write_eof()
        return response
    finally:
        gauge.dec()
        probes.leave(_NOBODY)


async def _go_on(request: web.Request, response: web.StreamResponse, seconds: float) -> None:
    clock, heartbeat = request.app[CLOCK], request.app[SETTINGS].heartbeat_seconds
    began = clock.monotonic()
    for number in range(1, stream_probe.EVENTS):
        await clock.sleep(stream_probe.SPACING_SECONDS)
        await send(response, stream_probe.tick(number, clock.monotonic() - began).raw)
    if seconds:
        end = clock.monotonic() + seconds
        while (left := end - clock.monotonic()) > heartbeat:
            await clock.sleep(heartbeat)
            await send(response, HEARTBEAT)
        await clock.sleep(left)
        await send(response, stream_probe.tick(stream_probe.EVENTS, clock.monotonic() - began).raw)
    await send(response, stream_probe.done().raw)


def _seconds(request: web.Request) -> float:
    given = request.query.get("seconds", "0")
    if not (given.isascii() and given.isdigit() and len(given) <= 4 and int(given) <= stream_probe.LONGEST_SECONDS):
        text = f"seconds must be a whole number from 0 to {stream_probe.LONGEST_SECONDS}"
        raise Unprocessable.field("seconds", text)
    return float(given)


def _last_event_id(request: web.Request) -> str | None:
    value = request.headers.get("Last-Event-ID")
    return value if value and value.isascii() and value.isprintable() and len(value) <= _LONGEST_ID else None
