"""What upstream streams costs no more than in proportion to its length, and so does what a reader asks of it."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.log_chunk import LogChunk
from gateway.streams.rules.sse import EventSplitter, EventTooLong, read_event
from tests.support.growth import assert_linear

Work = Callable[[Any], object]


def _log(n: int, event: Callable[[int], bytes]) -> EventLog:
    log = EventLog(1 << 40)
    for number in range(max(1, n // 32)):
        log.append(read_event(event(number)))
    return log


def _event(number: int) -> bytes:
    return b"event: output\nid: 1:%d\ndata: x\n\n" % number


def _odd_event(number: int) -> bytes:
    """The id that a reader asks for stands in each event, and is the id of none."""
    return b"id: 9:9\nid: 1:%d\ndata: x\n\n" % number


def _split(data: bytes, step: int = 1 << 16, most: int = 1 << 30) -> None:
    splitter = EventSplitter(most)
    for at in range(0, len(data), step):
        try:
            splitter.feed(data[at : at + step])
        except EventTooLong:
            return


def _read_all(log: EventLog) -> None:
    cursor = 0
    while cursor < log.end:
        _, cursor = log.read(cursor, 256)


def _dropping(n: int) -> None:
    log = EventLog(4096)
    for number in range(n // 32):
        log.append(read_event(_event(number)))


def _chunks(n: int) -> list[bytes]:
    log, chunks, cursor = EventLog(1 << 40), [], 0
    for number in range(max(1, n // 32)):
        log.append(read_event(_event(number)))
        if number % 8 == 7:
            chunks.append(log.chunk_from(cursor).dump())
            cursor = log.end
    return chunks or [log.chunk_from(0).dump()]


STREAMS: Mapping[str, tuple[Callable[[int], Any], Work]] = {
    "many events": (lambda n: _event(1) * (n // 32), _split),
    "many comments": (lambda n: b":\n\n" * (n // 3), _split),
    "blank lines": (lambda n: b"\n" * n, _split),
    "carriage returns": (lambda n: b"\r" * n, _split),
    "CR LF, byte by byte": (lambda n: b"data: x\r\n\r\n" * (n // 11), lambda data: _split(data, 1)),
    "an event that does not end, byte by byte": (lambda n: b"data: " + b"x" * n, lambda data: _split(data, 1)),
    "lines without a blank one, in small pieces": (lambda n: b"data: x\n" * (n // 8), lambda data: _split(data, 3)),
    "an event of many lines": (lambda n: b"data\n" * (n // 5) + b"\n", _split),
    "an event of many ids": (lambda n: b"id: 1\n" * (n // 6) + b"\n", _split),
    "an event of half line ends": (lambda n: b"data: x\r" * (n // 8) + b"\n\n", _split),
    "an event beyond the bound": (lambda n: b"x" * n, lambda data: _split(data, 7, len(data) // 2)),
    "a log, found by id": (lambda n: _log(n, _event), lambda log: log.after("1:0")),
    "a log, id unknown": (lambda n: _log(n, _event), lambda log: log.after("5:5")),
    "a log, id in each event": (lambda n: _log(n, _odd_event), lambda log: log.after("9:9")),
    "a log read in blocks": (lambda n: _log(n, _event), _read_all),
    "a log that drops": (lambda n: n, _dropping),
    "a log kept and read again": (
        lambda n: _log(n, _event),
        lambda log: EventLog.from_chunks([log.chunk_from(0).dump()], 1 << 40),
    ),
    "a log kept in many chunks": (_chunks, lambda chunks: EventLog.from_chunks(chunks, 1 << 40)),
    "a chunk": (lambda n: _log(n, _event).chunk_from(0).dump(), LogChunk.load),
}
"""Streams: what makes an input of n, and what is done with it."""


@pytest.mark.parametrize(("make", "work"), STREAMS.values(), ids=STREAMS)
def test_a_stream_costs_in_proportion_to_its_length(make: Callable[[int], Any], work: Work) -> None:
    """However upstream cuts and spells its events, and wherever a reader comes back."""
    assert_linear(make, work)
