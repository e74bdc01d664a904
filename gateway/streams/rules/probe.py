"""The probe stream: a few small events at known times, to see what becomes of event streams on the way to a caller.

It says nothing of any prediction and costs nothing, so it needs no key. It is told apart from a stream by its address
alone: its headers, its first comment and its heartbeats are those of every stream, and it lies beside them, so that a
proxy's rules for streams are what it meets.
"""

from typing import Final
from urllib.parse import urlsplit

import msgspec

from gateway.domain.links import origin_of
from gateway.streams.rules.replay import frame
from gateway.streams.rules.sse import DONE, Event

PATH: Final = "/streams/check"
EVENTS: Final = 6
SPACING_SECONDS: Final = 0.25
"""Long enough to be told from the jitter of a network, and the whole short enough to be waited for."""
LONGEST_SECONDS: Final = 600
"""Longest silence that can be asked for. Beyond ten minutes no time-out of the usual proxies lies."""
HELLO: Final = "hello"
TICK: Final = "tick"


class Hello(msgspec.Struct, frozen=True):
    """The first event: what of the request has arrived."""

    base: str
    """The base of the links that this caller would be given."""
    http: str
    """The version of HTTP that the gateway was asked with."""
    after: str | None
    """`Last-Event-ID` as it came: what a stream is taken up again by."""
    heartbeat_seconds: float
    """The longest silence of a stream."""


class Tick(msgspec.Struct, frozen=True):
    """An event at a known time: seconds since the first one, on the gateway's clock."""

    at: float


def base_at(url: str) -> str:
    """Spell a gateway's base URL with `/v1`, given that or its origin. Raise `ValueError` for what is neither."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("an address like https://gateway.example.com is wanted")
    return f"{origin_of(url)}{parts.path.rstrip('/').removesuffix('/v1')}/v1"


def hello(content: Hello) -> Event:
    """Build the first event."""
    return frame(HELLO, "0", _json(content))


def tick(number: int, at: float) -> Event:
    """Build one of the events after it."""
    return frame(TICK, str(number), _json(Tick(round(at, 3))))


def done() -> Event:
    """Build the last event, by which a stream that ended is told from one that was cut."""
    return frame(DONE, "end", "{}")


def _json(content: msgspec.Struct) -> str:
    return msgspec.json.encode(content).decode()
