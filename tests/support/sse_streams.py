"""Recorded and generated event streams, and what they say."""

from itertools import pairwise

import replicate  # noqa: F401  its module `stream` is hidden behind a function of that name
from hypothesis import strategies as st

from gateway.streams.rules.sse import Event, EventSplitter

# Recorded in October 2023 (docs/replicate-api.md, Streaming); the greeting and the texts as they stand there.
RECORDED = b"""\
: hi

event: output
id: 1698774369:0
data:

event: output
id: 1698774369:1
data:

event: output
id: 1698774370:0
data: Hello,

event: output
id: 1698774370:1
data: world

event: output
id: 1698774370:2
data: .

event: output
id: 1698774371:0
data:

event: done
id: 1698774371:1
data: {}

"""
RECORDED_EVENTS = [
    ("output", "1698774369:0", ""),
    ("output", "1698774369:1", ""),
    ("output", "1698774370:0", "Hello,"),
    ("output", "1698774370:1", "world"),
    ("output", "1698774370:2", "."),
    ("output", "1698774371:0", ""),
    ("done", "1698774371:1", "{}"),
]
LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}
LIMIT = 4096
BOM = b"\xef\xbb\xbf"
Said = tuple[str, str | None, str]


# Words of which any stream can be made, the broken ones first of all.
WORDS = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r"),
    *(b"data", b"id", b"event", b"retry", b":", b": ", b" ", b"  ", b"x", b"done", b"\0", b"datax:", b"Data:"),
    *(b"data: a", b"data:  b", b"data:", b"id: 1:2", b"id:3", b"event: output", b"event:", b": hi", b":408: 408"),
    *(b"\xff", b"\xc3", b"\xc3\xa9", b"\xe2\x82", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80", b"\xed\xa0\xbd", BOM),
    *(b"\x85", b"\x0b"),
]  # fmt: skip
STREAMS = st.lists(st.sampled_from(WORDS), max_size=40).map(b"".join)
CUTS = st.lists(st.integers(0, 10_000), max_size=12)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at these places, wherever they fall."""
    bounds = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[begin:end] for begin, end in pairwise(bounds)]


def split(chunks: list[bytes], limit: int = LIMIT) -> tuple[list[Event], bytes]:
    """Feed a splitter, and give its events and what it was left with."""
    splitter = EventSplitter(limit)
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    assert splitter.pending == len(splitter.rest())
    return events, splitter.rest()


def said(events: list[Event]) -> list[Said]:
    """What a reader gets: blocks without data are no events."""
    return [(event.name, event.id, event.data()) for event in events if event.has_data()]
