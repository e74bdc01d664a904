"""Logs that are stored, in one part or several, and read again."""

import zlib

import msgspec
import pytest

from gateway.streams.rules.event_log import Dropped, EventLog
from gateway.streams.rules.replay import frame
from tests.support.event_logs import PLENTY, filled, output


def dump(log: EventLog) -> bytes:
    return log.chunk_from(0).dump()


def joined(log: EventLog, max_bytes: int) -> EventLog:
    return EventLog.from_chunks([dump(log)], max_bytes)


def read_all(log: EventLog, cursor: int, limit: int) -> bytes:
    said = b""
    while cursor < log.end:
        data, cursor = log.read(cursor, limit)
        said += data
    return said


def test_log_is_equal_after_a_restart():
    """Cursors, numbers, the end, and what is gone."""
    log = filled(10, max_bytes=100)
    log.append(frame("done", "1698774370:0", "{}"))
    again = joined(log, 100)
    assert (again.end, again.dropped, again.size, again.last_id, again.is_closed) == (
        11, log.dropped, log.size, "1698774370:0", True,
    )  # fmt: skip
    assert again.after("1698774369:2") == Dropped()
    assert again.after("1698774369:9") == 10
    assert dump(again) == dump(log)


@pytest.mark.parametrize("count", [1, 10, 100, 2_000])
def test_parts_are_compressed_with_memory_of_about_their_size(count: int):
    """The header of the compressed bytes says how far back repetitions are searched."""
    log = filled(count, max_bytes=1_000_000)
    dumped = dump(log)
    size = len(zlib.decompress(dumped[1:]))
    window = 1 << (dumped[1] >> 4) + 8
    assert window == 32_768 or size <= window <= max(512, 2 * size)
    assert read_all(joined(log, 1_000_000), 0, 1_000_000) == read_all(log, 0, 1_000_000)


def test_log_continues_after_a_restart():
    """The run was still sending."""
    log = joined(filled(3), PLENTY)
    log.append(output(3))
    assert read_all(log, 0, 1) == b"".join(output(number).raw for number in range(4))


def test_log_is_cut_to_a_lowered_limit():
    """The current setting counts."""
    log = joined(filled(10), 100)
    assert (log.size <= 100, log.end, log.dropped) == (True, 10, 8)
    assert log.after("1698774369:0") == Dropped()
    assert log.outputs == 10


def test_log_stored_in_parts_is_read_as_one():
    """Half a second's events a part, as they came."""
    log, parts, kept = EventLog(PLENTY), [], 0
    for number in range(10):
        log.append(output(number) if number % 4 else frame("error", f"9:{number}", "{}"))
        if number % 3 == 2:
            part = log.chunk_from(kept)
            parts.append(part.dump())
            assert (part.first, part.end) == (kept, number + 1)
            kept = part.end
    again = EventLog.from_chunks(parts, PLENTY)
    assert (again.end, again.outputs, again.has_error, again.last_id) == (9, 6, True, "9:8")
    again.append(output(9))
    assert dump(again) == dump(log)
    assert read_all(again, 0, 1) == read_all(log, 0, 1)


def test_parts_with_a_gap_are_refused():
    """A text with a gap looks like a text."""
    log = filled(9)
    head = filled(3).chunk_from(0).dump()
    with pytest.raises(ValueError, match="a chunk starts at 5, expected 3"):
        EventLog.from_chunks([head, log.chunk_from(5).dump()], PLENTY)


def test_part_of_dropped_events_contains_the_remaining_ones():
    """Events dropped between two parts leave no gap in numbers or ids."""
    log = filled(10, max_bytes=100)
    part = log.chunk_from(2)
    assert (part.first, part.end) == (8, 10)
    assert EventLog.from_chunks([part.dump()], 100).after("1698774369:2") == Dropped()


def test_dump_is_small():
    """A token is wrapped in fifty bytes that are nearly the same each time; the store need not keep them all."""
    log = filled(1000)
    assert len(dump(log)) < log.size / 5


@pytest.mark.parametrize(
    "dumped",
    [
        b"",
        b"\x02" + dump(filled(1))[1:],
        dump(filled(3))[:-9],
        b"\x01" + zlib.compress(b"\x01"),
        b"\x01" + zlib.compress(msgspec.msgpack.encode([0, None, None, False, 0, False, [3], b"ab"])),
        b"\x01" + zlib.compress(msgspec.msgpack.encode([0, None, None, False, [3, -1], b"ab"])),
    ],
)
def test_invalid_dump_is_refused(dumped: bytes):
    """Damaged, of a later version, or something else: the replay from the output takes its place."""
    with pytest.raises(ValueError, match=r"not an event log|another version"):
        EventLog.from_chunks([dumped], PLENTY)
