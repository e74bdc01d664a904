"""The probe stream: a few small events at known times, to find out whether proxies alter event streams.

It reveals nothing and costs nothing, so it needs no key. Its path, headers, first comment and heartbeats are like those
of all streams, so that the same proxy rules apply to it.
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
"""Pause between events: longer than network jitter, and short enough for a user to wait for all events."""
MAX_SECONDS: Final = 600
"""Longest time without data that a client may request. Common proxies have no timeout above ten minutes."""
HELLO: Final = "hello"
TICK: Final = "tick"


class Hello(msgspec.Struct, frozen=True):
    """The first event: the request as the gateway received it."""

    base: str
    """The base URL of links in responses to this client."""
    http: str
    """The HTTP version of the request."""
    after: str | None
    """`Last-Event-ID` as it was received."""
    heartbeat_seconds: float
    """Seconds between heartbeats, the longest time without data of a stream."""


class Tick(msgspec.Struct, frozen=True):
    """An event at a known time, in seconds since the first event by the gateway's clock."""

    at: float


def base_at(url: str) -> str:
    """Return a gateway's base URL, ending in `/v1`, from its origin or base URL. Raise `ValueError` otherwise."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("expected a URL such as https://gateway.example.com")
    return f"{origin_of(url)}{parts.path.rstrip('/').removesuffix('/v1')}/v1"


def hello(content: Hello) -> Event:
    """Build the first event."""
    return frame(HELLO, "0", _json(content))


def tick(number: int, at: float) -> Event:
    """Build event `number`, sent `at` seconds after the first."""
    return frame(TICK, str(number), _json(Tick(round(at, 3))))


def done() -> Event:
    """Build the last event, which marks the stream as complete."""
    return frame(DONE, "end", "{}")


def _json(content: msgspec.Struct) -> str:
    return msgspec.json.encode(content).decode()
