"""What the probe streams tell of the way between the gateway and a reader: buffers, caches, compression, cuts.

Each finding says what was seen and how to mend it. Two readings are judged together, so that one hiccup of a network is
no buffer and a copy of the first answer is known for what it is.
"""

import itertools
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from gateway.streams.rules.probe import EVENTS, SPACING_SECONDS, Hello, base_at

_TOGETHER: Final = 0.25
"""Events that come within this part of the time between their sendings have waited for each other."""
_FAMILIAR_STATUS: Final = {
    401: "something between asks for credentials of its own: streams carry none, so let /v1/streams/ and /v1/files/ by",
    403: "something between refuses: look at its rules for /v1/streams/",
    404: "there is no gateway of this kind at that address: is it the base, and is /v1/streams/ passed on?",
    429: "too many probes are open at once: try again in a minute",
    502: "something between could not reach the gateway",
    503: "something between, or the gateway, has no capacity at the moment",
    504: "something between waited in vain for the gateway: it may be buffering the whole stream",
}
_BUFFER_MEND: Final = (
    "nginx: `proxy_buffering off`, and no `proxy_ignore_headers X-Accel-Buffering`; Traefik: no `buffering` "
    "middleware; a CDN: no response buffering and no caching for /v1/streams/ and /v1/files/"
)


class Level(StrEnum):
    """How a finding counts."""

    WELL = "well"
    NOTE = "note"
    """It works, and could be better."""
    BAD = "bad"


class Finding(msgspec.Struct, frozen=True):
    """Something about the way, in a sentence."""

    level: Level
    name: str
    text: str


class Arrival(msgspec.Struct, frozen=True):
    """An event, on two clocks: seconds since the first event on the gateway's, since the request on the reader's."""

    sent: float
    came: float


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What one reader saw of a probe stream."""

    nonce: str
    """What it sent as `Last-Event-ID`."""
    status: int | None = None
    """`None` if there was no answer."""
    headers: Sequence[tuple[str, str]] = ()
    hello: Hello | None = None
    arrivals: Sequence[Arrival] = ()
    """The first event and the ticks."""
    is_whole: bool = False
    """Whether it ended with `done`."""
    seconds: float = 0.0
    """From the request to the end, on the reader's clock."""
    trouble: str = ""
    """What the reader's side says of an end that was none."""


def refused(reading: Reading) -> Finding | None:
    """Say why there is no event stream to judge, if there is none."""
    headers = _headers(reading)
    if reading.status is None:
        return Finding(Level.BAD, "unreachable", reading.trouble)
    if 300 <= reading.status < 400:
        to = headers.get("location", "elsewhere")
        return Finding(Level.BAD, "redirect", f"it sends elsewhere ({reading.status}): check {to} instead")
    if reading.status != 200:
        reason = _FAMILIAR_STATUS.get(reading.status, "an event stream was expected")
        return Finding(Level.BAD, "status", f"it answered {reading.status}; {reason}")
    kind = headers.get("content-type", "no type")
    if kind.partition(";")[0].strip().lower() != "text/event-stream":
        text = f"it answers with {kind}, not text/event-stream: something between answers in the gateway's place"
        return Finding(Level.BAD, "content-type", text)
    return None


def judge(first: Reading, second: Reading, asked: str) -> Iterator[Finding]:
    """Judge two readings of the same address, one after the other. `asked` is the base that they were asked at."""
    yield _arrival(first, second)
    yield from _caching(first, second)
    yield from list(_changed(first)) or [Finding(Level.WELL, "headers", "as the gateway sent them")]
    if first.hello is not None:
        yield from _request(first.hello, asked)


def outlasted(reading: Reading, silence: float) -> Finding:
    """Judge a reading with a long silence in it, in which only heartbeats came."""
    if reading.is_whole:
        return Finding(Level.WELL, "silence", f"{silence:.0f} seconds with nothing but heartbeats were outlasted")
    heartbeat = reading.hello.heartbeat_seconds if reading.hello else 0.0
    lasted = reading.seconds - (reading.arrivals[-1].came if reading.arrivals else 0.0)
    if lasted < heartbeat:
        mend = (
            f"something between gives up sooner than heartbeats come (every {heartbeat:g} s). Let it wait longer "
            "(nginx: proxy_read_timeout), or set [streams] heartbeat_seconds below its time"
        )
    else:
        mend = (
            f"though a heartbeat came every {heartbeat:g} s: something limits how long an answer may take "
            "(Traefik: respondingTimeouts.writeTimeout; load balancers: the request's time-out)"
        )
    return Finding(Level.BAD, "cut", f"after {lasted:.0f} of {silence:.0f} seconds of silence; {mend}")


def _arrival(first: Reading, second: Reading) -> Finding:
    for reading in (first, second):
        if not reading.is_whole:
            because = f" ({reading.trouble})" if reading.trouble else ""
            return Finding(Level.BAD, "cut", f"it broke off after {reading.seconds:.1f} s, without its end{because}")
    if _is_bunched(first) and (_is_bunched(second) or _is_copy(first, second)):
        pieces = "one piece" if (count := _pieces(first)) == 1 else f"{count} pieces"
        text = (
            f"{EVENTS} events that were sent {SPACING_SECONDS * 1000:.0f} ms apart came in {pieces}, the first after "
            f"{first.arrivals[0].came:.1f} s. {_BUFFER_MEND}"
        )
        return Finding(Level.BAD, "buffered", text)
    late = min(_latest(first), _latest(second))
    text = f"{EVENTS} events, {SPACING_SECONDS * 1000:.0f} ms apart, none more than {late * 1000:.0f} ms late"
    return Finding(Level.WELL, "arrival", text)


def _caching(first: Reading, second: Reading) -> Iterator[Finding]:
    age = _headers(second).get("age")
    if _is_copy(first, second) or age is not None:
        seen = f"with `Age: {age}`" if age is not None else "word for word"
        text = f"the second reader got the first one's stream, {seen}. Exempt /v1/streams/ and /v1/files/ from caching"
        yield Finding(Level.BAD, "cached", text)


def _changed(reading: Reading) -> Iterator[Finding]:
    """Say what was done to the headers."""
    headers = _headers(reading)
    coding = headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        text = (
            f"the stream is compressed ({coding}), which makes proxies and readers hold events back. nginx: no "
            "text/event-stream in gzip_types; Traefik: no `compress` middleware; a CDN: no compression of event streams"
        )
        yield Finding(Level.BAD, "compressed", text)
    if "content-length" in headers:
        text = "something between takes the whole stream in before it passes it on, for it knows its length"
        yield Finding(Level.BAD, "content-length", f"{text}. {_BUFFER_MEND}")
    says = headers.get("cache-control", "nothing")
    if not {"no-store", "no-transform"} <= {each.strip().lower() for each in says.split(",")}:
        text = f"it says {says} where the gateway said `no-store, no-transform`: keep the gateway's"
        yield Finding(Level.BAD, "cache-control", text)
    if "access-control-allow-origin" in headers:
        text = (
            "something between adds Access-Control-Allow-Origin, though no page asked: with the gateway's own there "
            "will be two, which browsers refuse. Leave CORS to the gateway (`origins` of the teams)"
        )
        yield Finding(Level.BAD, "cors", text)


def _request(hello: Hello, asked: str) -> Iterator[Finding]:
    """Say what was done to the request."""
    if hello.after is None:
        text = "it does not reach the gateway: a browser that comes back is told everything again. Let the header by"
        yield Finding(Level.BAD, "last-event-id", text)
    if base_at(hello.base) == asked:
        yield Finding(Level.WELL, "links", hello.base)
    else:
        # A page that came by https may not follow a link to http at all.
        is_mixed = asked.startswith("https:") and hello.base.startswith("http:")
        text = (
            f"the gateway would give out links to {hello.base}. Set server.public_url, or let the proxy pass Host and "
            "X-Forwarded-Proto, and list it in server.trusted_proxies"
        )
        yield Finding(Level.BAD if is_mixed else Level.NOTE, "links", text)
    if hello.http < "1.1":
        text = (
            f"the gateway is asked with HTTP/{hello.http}, by which a stream that was cut cannot be told from one that "
            "ended. nginx: `proxy_http_version 1.1` and `proxy_set_header Connection ''`"
        )
        yield Finding(Level.NOTE, "http", text)


def _headers(reading: Reading) -> dict[str, str]:
    return {name.lower(): value for name, value in reading.headers}


def _is_copy(first: Reading, second: Reading) -> bool:
    """Whether the second reader was told what the first one had sent."""
    return second.hello is not None and second.hello.after == first.nonce


def _gaps(reading: Reading) -> list[bool]:
    """Say of each event after the first whether it came together with the one before it."""
    pairs = itertools.pairwise(reading.arrivals)
    return [later.came - one.came < _TOGETHER * (later.sent - one.sent) for one, later in pairs]


def _is_bunched(reading: Reading) -> bool:
    """Whether most events have waited for each other."""
    gaps = _gaps(reading)
    return sum(gaps) * 2 > len(gaps)


def _pieces(reading: Reading) -> int:
    return 1 + sum(not together for together in _gaps(reading))


def _latest(reading: Reading) -> float:
    """Return how much longer the slowest event was on its way than the quickest."""
    ways = [each.came - each.sent for each in reading.arrivals]
    return max(ways) - min(ways)
