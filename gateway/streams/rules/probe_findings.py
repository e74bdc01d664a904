"""Evaluates probe streams: do proxies between the gateway and a client buffer, cache, compress or cut event streams?

Each finding says what was observed and how to fix it. Two readings are evaluated together: a single network delay is
not taken for buffering, and a cached copy of the first response is detected.
"""

import itertools
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from gateway.streams.rules.probe import EVENTS, SPACING_SECONDS, Hello, base_at

_BUNCHED: Final = 0.25
"""Two events arrived together if the time between their arrivals is less than this fraction of that between sends."""
_STATUS_ADVICE: Final = {
    401: "a proxy requires credentials: streams carry none, so exempt /v1/streams/ and /v1/files/",
    403: "a proxy refuses the request: check its rules for /v1/streams/",
    404: "there is no gateway at that address: check the base URL, and that the proxy forwards /v1/streams/",
    429: "too many probes are open at once: try again in a minute",
    502: "a proxy could not reach the gateway",
    503: "a proxy or the gateway is at capacity or shutting down: try again",
    504: "a proxy timed out waiting for the gateway: it may be buffering the entire stream",
}
_BUFFER_FIX: Final = (
    "nginx: `proxy_buffering off`, and no `proxy_ignore_headers X-Accel-Buffering`; Traefik: no `buffering` "
    "middleware; a CDN: no response buffering and no caching for /v1/streams/ and /v1/files/"
)


class Level(StrEnum):
    """The severity of a finding."""

    WELL = "well"
    NOTE = "note"
    """Works, but can be improved."""
    BAD = "bad"


class Finding(msgspec.Struct, frozen=True):
    """One result of the check: what it is about, and a sentence with the observation and the fix."""

    level: Level
    name: str
    text: str


class Arrival(msgspec.Struct, frozen=True):
    """When an event was sent and when it arrived, in seconds.

    `sent` is since the first event, by the gateway's clock; `received` is since the request, by the client's clock.
    """

    sent: float
    received: float


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """A probe stream as one client received it."""

    nonce: str
    """The `Last-Event-ID` of the request."""
    status: int | None = None
    """`None` if there was no response."""
    headers: Sequence[tuple[str, str]] = ()
    hello: Hello | None = None
    arrivals: Sequence[Arrival] = ()
    """The first event and the ticks."""
    is_complete: bool = False
    """Whether it ended with `done`."""
    seconds: float = 0.0
    """From the request to the end, by the client's clock."""
    error: str = ""
    """The client's error, if the stream ended without `done`."""


def refused(reading: Reading) -> Finding | None:
    """Return why there is no event stream to evaluate, or `None` if there is one."""
    headers = _headers(reading)
    if reading.status is None:
        return Finding(Level.BAD, "unreachable", reading.error)
    if 300 <= reading.status < 400:
        to = headers.get("location", "elsewhere")
        return Finding(Level.BAD, "redirect", f"it redirects ({reading.status}): check {to} instead")
    if reading.status != 200:
        reason = _STATUS_ADVICE.get(reading.status, "an event stream was expected")
        return Finding(Level.BAD, "status", f"it responded with {reading.status}; {reason}")
    kind = headers.get("content-type", "no type")
    if kind.partition(";")[0].strip().lower() != "text/event-stream":
        text = f"it responded with {kind}, not text/event-stream: a proxy responds in place of the gateway"
        return Finding(Level.BAD, "content-type", text)
    return None


def judge(first: Reading, second: Reading, base: str) -> Iterator[Finding]:
    """Evaluate two readings of the same URL, taken one after the other. `base` is the base URL that was checked."""
    yield _arrival(first, second)
    yield from _caching(first, second)
    yield from list(_response_headers(first)) or [Finding(Level.WELL, "headers", "as the gateway sent them")]
    if first.hello is not None:
        yield from _request(first.hello, base)


def outlasted(reading: Reading, silence: float) -> Finding:
    """Evaluate a reading with a long silence, in seconds, during which the gateway sends only heartbeats."""
    if reading.is_complete:
        return Finding(Level.WELL, "silence", f"the stream survived {silence:.0f} seconds with only heartbeats")
    heartbeat = reading.hello.heartbeat_seconds if reading.hello else 0.0
    lasted = reading.seconds - (reading.arrivals[-1].received if reading.arrivals else 0.0)
    if lasted < heartbeat:
        fix = (
            f"a proxy times out before the first heartbeat ({heartbeat:g} s). Raise its timeout "
            "(nginx: proxy_read_timeout), or set [streams] heartbeat_seconds below it"
        )
    else:
        fix = (
            f"a heartbeat was sent every {heartbeat:g} s, so a proxy limits the duration of responses "
            "(Traefik: respondingTimeouts.writeTimeout; load balancers: the request timeout)"
        )
    return Finding(Level.BAD, "cut", f"after {lasted:.0f} of {silence:.0f} seconds of silence; {fix}")


def _arrival(first: Reading, second: Reading) -> Finding:
    for reading in (first, second):
        if not reading.is_complete:
            because = f" ({reading.error})" if reading.error else ""
            return Finding(Level.BAD, "cut", f"it was cut after {reading.seconds:.1f} s, before its end{because}")
    if _is_bunched(first) and (_is_bunched(second) or _is_copy(first, second)):
        pieces = "one piece" if (count := _pieces(first)) == 1 else f"{count} pieces"
        text = (
            f"{EVENTS} events that were sent {SPACING_SECONDS * 1000:.0f} ms apart arrived in {pieces}, the first "
            f"after {first.arrivals[0].received:.1f} s. {_BUFFER_FIX}"
        )
        return Finding(Level.BAD, "buffered", text)
    late = min(_latest(first), _latest(second))
    text = f"{EVENTS} events, {SPACING_SECONDS * 1000:.0f} ms apart, none more than {late * 1000:.0f} ms late"
    return Finding(Level.WELL, "arrival", text)


def _caching(first: Reading, second: Reading) -> Iterator[Finding]:
    age = _headers(second).get("age")
    if _is_copy(first, second) or age is not None:
        seen = f"with `Age: {age}`" if age is not None else "byte for byte"
        text = f"the second client got the first one's stream, {seen}. Exempt /v1/streams/ and /v1/files/ from caching"
        yield Finding(Level.BAD, "cached", text)


def _response_headers(reading: Reading) -> Iterator[Finding]:
    """Report response headers that a proxy changed."""
    headers = _headers(reading)
    coding = headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        text = (
            f"the stream is compressed ({coding}), so proxies and clients may delay events. nginx: no "
            "text/event-stream in gzip_types; Traefik: no `compress` middleware; a CDN: no compression of event streams"
        )
        yield Finding(Level.BAD, "compressed", text)
    if "content-length" in headers:
        text = "a proxy reads the entire stream before it forwards it, because it knows its length"
        yield Finding(Level.BAD, "content-length", f"{text}. {_BUFFER_FIX}")
    cache_control = headers.get("cache-control", "missing")
    if not {"no-store", "no-transform"} <= {each.strip().lower() for each in cache_control.split(",")}:
        text = f"it is {cache_control} instead of `no-store, no-transform`: keep the gateway's header"
        yield Finding(Level.BAD, "cache-control", text)
    if "access-control-allow-origin" in headers:
        text = (
            "a proxy adds Access-Control-Allow-Origin. Together with the gateway's own header there will be two, which "
            "browsers reject. Leave CORS to the gateway (`origins` of the teams)"
        )
        yield Finding(Level.BAD, "cors", text)


def _request(hello: Hello, base: str) -> Iterator[Finding]:
    """Report what proxies changed in the request."""
    if hello.after is None:
        text = "it does not reach the gateway: browsers that reconnect get all events again. Let proxies forward it"
        yield Finding(Level.BAD, "last-event-id", text)
    if base_at(hello.base) == base:
        yield Finding(Level.WELL, "links", hello.base)
    else:
        # Browsers block requests from https pages to http URLs.
        is_mixed = base.startswith("https:") and hello.base.startswith("http:")
        text = (
            f"the gateway's links would start with {hello.base}. Set server.public_url, or let the proxy forward Host "
            "and X-Forwarded-Proto, and list it in server.trusted_proxies"
        )
        yield Finding(Level.BAD if is_mixed else Level.NOTE, "links", text)
    if hello.http < "1.1":
        text = (
            f"the gateway receives HTTP/{hello.http}, which cannot distinguish a cut stream from a complete one. "
            "nginx: `proxy_http_version 1.1` and `proxy_set_header Connection ''`"
        )
        yield Finding(Level.NOTE, "http", text)


def _headers(reading: Reading) -> dict[str, str]:
    return {name.lower(): value for name, value in reading.headers}


def _is_copy(first: Reading, second: Reading) -> bool:
    """Return whether the second client received the response to the first one's request."""
    return second.hello is not None and second.hello.after == first.nonce


def _together(reading: Reading) -> list[bool]:
    """Return for each event after the first whether it arrived together with the one before it."""
    pairs = itertools.pairwise(reading.arrivals)
    return [later.received - one.received < _BUNCHED * (later.sent - one.sent) for one, later in pairs]


def _is_bunched(reading: Reading) -> bool:
    """Return whether most events arrived together with the one before them."""
    together = _together(reading)
    return sum(together) * 2 > len(together)


def _pieces(reading: Reading) -> int:
    return 1 + sum(not is_together for is_together in _together(reading))


def _latest(reading: Reading) -> float:
    """Return the difference in seconds between the slowest and the fastest event."""
    delays = [each.received - each.sent for each in reading.arrivals]
    return max(delays) - min(delays)
