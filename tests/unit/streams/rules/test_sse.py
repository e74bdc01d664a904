"""Cutting streams into events: against the recorded wire, the standard written down twice, and the parsers of others.

Where the others differ from the standard, and their domains are therefore narrowed:

- `httpx-sse` keeps a byte order mark, and says an empty `message` for each blank line and comment once it has seen an
  id, and for blocks without data. It gives each event the last id of the stream.
- `eventsource-parser` holds a CR at the end of a chunk back until more comes, and leaves byte order marks to the
  decoder. It gives each event its own id.
- Replicate's Python client gives no event before the first id, and refuses names that are not its four.
"""

import re

import pytest
import replicate  # noqa: F401  its module `stream` is hidden behind a function of that name
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.streams.rules.sse import Event, EventSplitter, EventTooLong, is_done, is_idle_timeout, read_event
from tests.support.sse_streams import (
    BOM,
    CUTS,
    LIMIT,
    LINE_ENDS,
    RECORDED,
    RECORDED_EVENTS,
    STREAMS,
    Said,
    cut,
    said,
    split,
)


def by_the_standard(stream: bytes) -> list[Said]:
    """Read a stream as the standard says it, word by word: decode, split into lines, interpret each."""
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    events: list[Said] = []
    name, event_id, data = "", None, ""
    for line in re.split("\r\n|\r|\n", text)[:-1]:
        if not line:
            if data:
                events.append((name or "message", event_id, data[:-1]))
            name, event_id, data = "", None, ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data += value + "\n"
        elif field == "id" and "\0" not in value:
            event_id = value
    return events


@pytest.mark.parametrize("end", LINE_ENDS.values(), ids=LINE_ENDS)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 100_000])
def test_recorded_stream_is_parsed_without_loss(end: bytes, size: int):
    """Whole, byte by byte and with every line end: the same events, and not a byte added, lost or moved."""
    stream = RECORDED.replace(b"\n", end)
    events, rest = split([stream[at : at + size] for at in range(0, len(stream), size)])
    assert b"".join(event.raw for event in events) + rest == stream
    assert said(events) == RECORDED_EVENTS
    assert [event.is_comment for event in events] == [True] + [False] * 7
    assert [is_done(event) for event in events] == [False] * 7 + [True]


def test_each_event_has_its_own_bytes():
    """The greeting, an empty token, the end: each with its blank line, none with a neighbour's."""
    events, rest = split([RECORDED])
    assert b"".join(event.raw for event in events) == RECORDED
    assert [event.raw for event in (events[0], events[1], events[-1])] == [
        b": hi\n\n",
        b"event: output\nid: 1698774369:0\ndata:\n\n",
        b"event: done\nid: 1698774371:1\ndata: {}\n\n",
    ]
    assert rest == b""


def test_trailing_partial_event_is_kept_apart():
    """It is not glued to the next connection."""
    splitter = EventSplitter(LIMIT)
    events = splitter.feed(RECORDED + b"event: output\nid: 1:0\ndata: ha")
    assert len(events) == 8
    assert splitter.rest() == b"event: output\nid: 1:0\ndata: ha"
    assert splitter.pending == len(splitter.rest())
    splitter.reset()
    assert (splitter.pending, splitter.rest()) == (0, b"")
    assert said(splitter.feed(b"data: whole\n\n")) == [("message", None, "whole")]


@pytest.mark.parametrize("end", LINE_ENDS.values(), ids=LINE_ENDS)
def test_event_is_returned_with_the_byte_that_ends_it(end: bytes):
    """No token waits for the next one, not even where a CR may be half of a CR LF."""
    splitter = EventSplitter(LIMIT)
    assert splitter.feed(b"data: a" + end) == []
    assert said(splitter.feed(end[:1])) == [("message", None, "a")]


def test_late_line_feed_begins_the_next_event():
    """CR LF whose halves come apart is one line end, and both halves are passed on."""
    splitter = EventSplitter(LIMIT)
    (first,) = splitter.feed(b"data: a\r\n\r")
    (second,) = splitter.feed(b"\ndata: b\r\n\r\n")
    assert (first.raw, second.raw) == (b"data: a\r\n\r", b"\ndata: b\r\n\r\n")
    assert said([first, second]) == [("message", None, "a"), ("message", None, "b")]


def test_split_line_end_does_not_end_the_event():
    """CR, then LF in the next packet: the event goes on."""
    splitter = EventSplitter(LIMIT)
    assert splitter.feed(b"event: output\r") == []
    assert splitter.feed(b"\n") == []
    assert said(splitter.feed(b"data: a\r\n\r\n")) == [("output", None, "a")]


def test_blank_lines_without_an_event_are_passed_on_with_the_next():
    """Some servers keep connections open with bare line breaks."""
    events, rest = split([b"\n\r\n\r\rdata: a\n\n\n\n"])
    assert [event.raw for event in events] == [b"\n\r\n\r\rdata: a\n\n"]
    assert said(events) == [("message", None, "a")]
    assert rest == b"\n\n"


@given(STREAMS, CUTS)
@settings(max_examples=1000, deadline=None)
def test_chunk_boundaries_never_matter(stream: bytes, places: list[int]):
    """Any bytes, cut anywhere: the events of the standard, and joined the bytes that came."""
    events, rest = split(cut(stream, places))
    assert b"".join(event.raw for event in events) + rest == stream.removeprefix(BOM)
    assert said(events) == by_the_standard(stream)


@given(STREAMS, CUTS)
@settings(max_examples=300, deadline=None)
def test_chunk_boundaries_move_at_most_a_line_feed(stream: bytes, places: list[int]):
    """The events of a log are the same however they arrived, but for the LF of a CR LF that was cut at an end."""
    whole, _ = split([stream])
    pieces, _ = split(cut(stream, places))
    assert [event.raw.strip(b"\r\n") for event in whole] == [event.raw.strip(b"\r\n") for event in pieces]
    assert [(event.id, event.name, event.is_comment) for event in whole] == [
        (event.id, event.name, event.is_comment) for event in pieces
    ]


@given(STREAMS)
@settings(max_examples=300, deadline=None)
def test_stored_event_parses_to_the_same(stream: bytes):
    """What a log keeps of an event is its bytes: everything else can be read from them again."""
    events, _ = split([stream])
    assert [read_event(event.raw) for event in events] == events


@pytest.mark.parametrize(
    ("lines", "data"),
    [
        (b"data: a\n", "a"),
        (b"data:  a ha\n", " a ha"),
        (b"data:a\n", "a"),
        (b"data\n", ""),
        (b"data:\n", ""),
        (b"data:\ndata:\n", "\n"),
        (b"data: a\ndata:\n", "a\n"),
        (b"data: a\nid: 1\ndata: b\n", "a\nb"),
        (b"data: {\"a\": 1}\n", '{"a": 1}'),
        (b"data: a: b\n", "a: b"),
        (b"data:\ta\n", "\ta"),
        (b"data: a\xe2\x80\xa8b\x85\n", "a\u2028b\ufffd"),
        (b"data: \xef\xbb\xbfa\n", "\ufeffa"),
        (b"datax: a\nDATA: b\n data: c\n", ""),
        (b"data: a\xff\xf0\x9f\x98\n", "a\ufffd\ufffd"),
    ],
)  # fmt: skip
def test_data_is_parsed_as_the_standard_says(lines: bytes, data: str):
    """Only one space belongs to the syntax: the other spaces and line breaks of tokens are theirs."""
    event = read_event(lines + b"\n")
    assert event.data() == data
    assert event.has_data() is (b"\ndata" in b"\n" + lines.replace(b"datax", b""))


@pytest.mark.parametrize(
    ("lines", "event_id"),
    [
        (b"id: 1698774369:0\n", "1698774369:0"),
        (b"id:1\n", "1"),
        (b"id:  1\n", " 1"),
        (b"id\n", ""),
        (b"id:\n", ""),
        (b"id: 1\nid: 2\n", "2"),
        (b"id: 2\x003\n", None),
        (b"id: 1\nid: 2\x003\n", "1"),
        (b"id: \xff\n", "\ufffd"),
        (b"ID: 1\nidx: 2\n id: 3\n: id: 4\n", None),
    ],
)
def test_id_is_parsed_as_the_standard_says(lines: bytes, event_id: str | None):
    """Readers resume with the id; one with NUL cannot go into a header and is none."""
    assert read_event(lines + b"data: a\n\n").id == event_id


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (b"event: output\n", "output"),
        (b"event:output\n", "output"),
        (b"event\n", "message"),
        (b"event: done\nevent:\n", "message"),
        (b"event: logs\nevent: output\n", "output"),
        (b"event: \xff\n", "\ufffd"),
        (b"", "message"),
    ],
)
def test_event_name_is_parsed_as_the_standard_says(lines: bytes, name: str):
    """Without a name it is a `message`, as in a browser."""
    assert read_event(lines + b"data: a\n\n").name == name


@pytest.mark.parametrize(
    "block", [b": hi\n\n", b":408: 408 Request Timeout\n\n", b":\n\n", b"\n: a\n: b\n\n", b"\r:a\r\r"]
)
def test_comment_stands_alone(block: bytes):
    """Comments keep connections open; they are neither lost nor part of a neighbour, and carry nothing."""
    events, rest = split([b"data: a\n\n", block, b"data: b\n\n"])
    assert [event.is_comment for event in events] == [False, True, False]
    assert events[1] == Event(block, None, "message", True)
    assert said(events) == [("message", None, "a"), ("message", None, "b")]
    assert rest == b""


def test_comment_within_an_event_is_part_of_it():
    """No blank line, no end."""
    (event,), _ = split([b": hi\ndata: a\n: ho\n\n"])
    assert not event.is_comment
    assert event.data() == "a"


def test_upstreams_timeout_comment_is_recognised():
    """After thirty idle seconds upstream ends a stream with a comment, which is no reason to end it for readers."""
    assert is_idle_timeout(read_event(b":408: 408 Request Timeout\n\n"))
    assert is_idle_timeout(read_event(b"\n: hi\r\n:408: 408 Request Timeout\r\n\r\n"))
    assert not is_idle_timeout(read_event(b": hi\n\n"))
    assert not is_idle_timeout(read_event(b"data: a\ndata: :408:\n:408: no\n\n"))


def test_done_counts_only_if_clients_see_it():
    """`done` without data is dispatched by no client: taking it for the end would leave readers waiting."""
    assert is_done(read_event(b"event: done\nid: 1:1\ndata: {}\n\n"))
    assert is_done(read_event(b"event: done\ndata\n\n"))
    assert not is_done(read_event(b"event: done\nid: 1:1\n\n"))
    assert not is_done(read_event(b"event: output\ndata: done\n\n"))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_byte_order_mark_is_dropped(size: int):
    """The standard drops it, once per connection, however it is cut."""
    stream = BOM + b"event: output\ndata: a\n\n"
    splitter = EventSplitter(LIMIT)
    for _ in range(2):
        events = [event for at in range(0, len(stream), size) for event in splitter.feed(stream[at : at + size])]
        assert [event.raw for event in events] == [b"event: output\ndata: a\n\n"]
        assert said(events) == [("output", None, "a")]
        splitter.reset()


def test_only_the_first_byte_order_mark_is_dropped():
    """A second is part of the text: it makes another field name of what follows, as in a browser."""
    (event,), _ = split([BOM + BOM + b"data: a\n\n"])
    assert event.raw == BOM + b"data: a\n\n"
    assert not event.has_data()


def test_endless_line_is_refused_at_the_limit():
    """An upstream that never ends a line costs no more memory than one event may."""
    splitter = EventSplitter(LIMIT)
    whole = splitter.feed(b"data: a\n\ndata: ")
    for _ in range(LIMIT // 64 - 1):
        assert splitter.feed(b"x" * 64) == []
        assert splitter.pending <= LIMIT
    with pytest.raises(EventTooLong, match="more than 4096 bytes"):
        splitter.feed(b"x" * 64)
    assert said(whole) == [("message", None, "a")]
    assert splitter.pending == 0


def test_event_at_the_limit_passes_and_one_byte_more_does_not():
    """The limit is a number of bytes, blank line included, be the event whole or not."""
    event = b"data: " + b"x" * (LIMIT - 8) + b"\n\n"
    assert len(event) == LIMIT
    assert [each.raw for each in split([event])[0]] == [event]
    with pytest.raises(EventTooLong):
        split([b"x" + event])


def test_complete_events_before_a_long_one_are_returned():
    """The events of the same packet are returned with the refusal."""
    with pytest.raises(EventTooLong) as refusal:
        split([b"data: a\n\ndata: b\n\n" + b"x" * 100], limit=20)
    assert said(refusal.value.events) == [("message", None, "a"), ("message", None, "b")]


def test_splitter_that_refused_stays_so_until_the_next_connection():
    """The middle of an event must never be taken for its beginning."""
    splitter = EventSplitter(16)
    with pytest.raises(EventTooLong):
        splitter.feed(b"x" * 17)
    with pytest.raises(ValueError, match="more than 16"):
        splitter.feed(b"\n\ndata: a\n\n")
    splitter.reset()
    assert said(splitter.feed(b"data: a\n\n")) == [("message", None, "a")]


@given(st.lists(st.integers(1, 60), max_size=20), CUTS, st.integers(8, 64))
@settings(max_examples=300, deadline=None)
def test_limit_does_not_depend_on_chunk_boundaries(sizes: list[int], places: list[int], limit: int):
    """What is held never exceeds the limit, and the same events come through before it is reached."""
    stream = b"".join(b"x" * size + b"\n\n" for size in sizes)
    expected = []
    for size in sizes:
        if size + 2 > limit:
            break
        expected.append(b"x" * size + b"\n\n")
    splitter = EventSplitter(limit)
    got: list[Event] = []
    try:
        for chunk in cut(stream, places):
            got += splitter.feed(chunk)
            assert splitter.pending <= limit
    except EventTooLong as refusal:
        got += refusal.events
        assert len(expected) < len(sizes)
    else:
        assert len(expected) == len(sizes)
    assert [event.raw for event in got] == expected


def test_long_and_many_events_take_linear_time():
    """A picture as a data URI in small packets, or thousands of tokens, delay no other stream."""
    picture = b"event: output\nid: 1:0\ndata: data:image/png;base64," + b"A" * 4_000_000 + b"\n\n"
    tokens = RECORDED * 2000
    splitter = EventSplitter(8_000_000)
    # It takes 0.04 s; quadratic time would be minutes: the test's timeout is the bound.
    for stream, expected in ((picture, 1), (tokens, 16_000)):
        count = sum(len(splitter.feed(stream[at : at + 4096])) for at in range(0, len(stream), 4096))
        assert count == expected
