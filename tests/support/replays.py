"""The events of a finished run, all at once."""

from typing import Any

from gateway.streams.rules.replay import events_of
from gateway.streams.rules.sse import Event


def replay(document: bytes, ended_at: float, **more: Any) -> list[Event]:
    """Return what `events_of` yields."""
    return list(events_of(document, ended_at, **more))
