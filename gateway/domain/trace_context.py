"""W3C Trace Context: parse `traceparent`, so that a request's log lines have the caller's trace id."""

import re
from typing import Final

import msgspec

# Version ff and ids of zeros are invalid. Later versions can append parts after the flags (W3C, 3.2).
_TRACEPARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?P<parent>(?!0{16})[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<rest>-.*)?"
)
_LONGEST: Final = 512


class TraceContext(msgspec.Struct, frozen=True):
    """The trace that the caller says a request belongs to."""

    trace_id: str
    parent_id: str
    is_sampled: bool


def parse(traceparent: str) -> TraceContext | None:
    """Parse a `traceparent`; return `None` if it is invalid, which the standard treats as absent."""
    found = _TRACEPARENT.fullmatch(traceparent) if len(traceparent) <= _LONGEST else None
    if found is None or (found["version"] == "00" and found["rest"] is not None):
        return None
    return TraceContext(found["trace"], found["parent"], bool(int(found["flags"], 16) & 1))


def write(trace_id: str, parent_id: str, *, is_sampled: bool) -> str:
    """Return a `traceparent`."""
    return f"00-{trace_id}-{parent_id}-{is_sampled:02x}"
