"""The bounded log of a run's events, held against a plain list that forgets nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.streams.rules import event_log
from gateway.streams.rules.event_log import Behind, Dropped, EventLog, Unknown, order
from gateway.streams.rules.replay import frame
from gateway.streams.rules.sse import Event, EventSplitter, read_event
from tests.support.event_logs import PLENTY, filled, output

GREETING = read_event(b": hi\n\n")


def test_late_reader_gets_history_and_then_live_events():
    """One text, with nothing missing and nothing twice."""
    log = filled(3)
    said, cursor = log.read(log.start(), PLENTY)
    assert (said, cursor) == (b"".join(output(number).raw for number in range(3)), log.end)
    assert log.read(cursor, PLENTY) == (b"", 3)
    assert log.append(output(3)) == 3
    assert log.read(cursor, PLENTY) == (output(3).raw, 4)


def test_read_returns_whole_events_up_to_the_limit():
    """At least one: a longer event does not block the reader."""
    log = filled(3)
    size = len(output(0).raw)
    assert log.read(0, 2 * size) == (output(0).raw + output(1).raw, 2)
    assert log.read(0, 2 * size - 1) == (output(0).raw, 1)
    assert log.read(1, 0) == (output(1).raw, 2)


@pytest.mark.parametrize("cursor", [-1, 4])
def test_foreign_cursor_is_refused(cursor: int):
    """It would be a reader of another run's log."""
    with pytest.raises(ValueError, match=r"not in 0\.\.3"):
        filled(3).read(cursor, PLENTY)


def test_empty_log_has_nothing_to_read():
    """A reader who comes first waits at the start."""
    log = EventLog(PLENTY)
    assert log.read(log.start(), PLENTY) == (b"", 0)
    assert (log.end, log.dropped, log.size, log.last_id, log.is_closed) == (0, 0, 0, None, False)


def test_event_without_bytes_is_refused():
    """It could be read without end."""
    with pytest.raises(ValueError, match="the event is empty"):
        EventLog(PLENTY).append(Event(b"", None, "message", True))


def test_done_closes_a_log():
    """Events after it reach no reader."""
    log = filled(2)
    log.append(frame("done", "1698774370:0", "{}"))
    assert log.is_closed
    with pytest.raises(ValueError, match="the log is closed"):
        log.append(output(9))
    assert log.read(2, PLENTY) == (b"event: done\nid: 1698774370:0\ndata: {}\n\n", 3)


def test_log_can_be_closed_without_done():
    """For a run that ends with the gateway."""
    log = filled(1)
    log.close()
    assert log.is_closed
    with pytest.raises(ValueError, match="the log is closed"):
        log.append(output(9))


def test_oldest_events_are_dropped_at_the_limit():
    """The log knows how much it dropped."""
    size = len(output(0).raw)
    log = filled(10, max_bytes=3 * size + size // 2)
    assert (log.size, log.dropped, log.end) == (3 * size, 7, 10)
    assert log.is_behind(log.start())
    assert log.is_behind(6)
    assert not log.is_behind(7)
    assert log.read(7, PLENTY) == (b"".join(output(number).raw for number in (7, 8, 9)), 10)


def test_reader_behind_the_log_gets_an_error():
    """It is ended so that it resumes, instead of getting a text with a gap."""
    log = filled(10, max_bytes=100)
    with pytest.raises(Behind, match="event 0 has been dropped; the oldest is 8"):
        log.read(0, PLENTY)


def test_event_above_the_limit_is_readable_until_the_next():
    """A picture larger than the log reaches connected readers."""
    log = EventLog(100)
    picture = output(0, "A" * 500)
    log.append(picture)
    assert log.read(0, PLENTY) == (picture.raw, 1)
    log.append(output(1))
    assert (log.dropped, log.size) == (1, len(output(1).raw))


def test_long_stream_takes_no_more_memory_than_a_short_one():
    """Neither bytes nor places of dropped events stay."""
    log = EventLog(1000)
    for number in range(20_000):
        log.append(output(number))
    assert log.end == 20_000
    assert log.size <= 1000
    assert len(log._ends) < 100
    assert log.read(log.dropped, PLENTY)[1] == 20_000


def test_reader_resumes_after_its_last_event():
    """`Last-Event-ID`: neither that event again, nor one less."""
    log = filled(20)
    for number in range(20):
        assert log.after(f"1698774369:{number}") == number + 1


def test_comments_have_no_id():
    """A reader that saw the event before a comment gets the comment again, which is harmless."""
    log = EventLog(PLENTY)
    for event in (GREETING, output(0), GREETING, output(1)):
        log.append(event)
    assert log.after("1698774369:0") == 2
    assert log.after("1698774369:1") == 4


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("colon", [b": ", b":"])
def test_ids_are_found_as_upstream_wrote_them(end: bytes, colon: bytes):
    """With every line end, with and without the space, first in the event or last."""
    log = EventLog(PLENTY)
    stream = end.join([b"id" + colon + b"a:1", b"data: id: a:2", b"", b"data: x", b"id" + colon + b"a:2", b"", b""])
    for event in EventSplitter(PLENTY).feed(stream):
        log.append(event)
    assert log.after("a:1") == 1
    assert log.after("a:2") == 2
    assert log.last_id == "a:2"
    assert log.after("a:") == Unknown()
    assert log.after(":2") == Unknown()


def test_text_that_looks_like_an_id_is_none():
    """A model may write what it likes."""
    log = EventLog(PLENTY)
    log.append(output(0, "id: 7:7\nid: 7:7"))
    log.append(read_event(b"id: 7:7\nid: 8:8\ndata: a\n\n"))
    assert log.after("7:7") == Unknown()
    assert log.after("8:8") == 2
    log.append(read_event(b"id: 7:7\ndata: a\n\n"))
    assert log.after("7:7") == 3


def test_first_of_events_with_an_equal_id_counts():
    """Rather a token twice than one lost."""
    log = EventLog(PLENTY)
    for event in (output(0), output(0, "b"), output(1)):
        log.append(event)
    assert log.after("1698774369:0") == 1


def test_dropped_id_is_gone():
    """A reader that would miss events gets an error, also for ids that are older than any here."""
    log = filled(10, max_bytes=100)
    assert log.dropped == 8
    for number in range(8):
        assert log.after(f"1698774369:{number}") == Dropped()
    assert log.after("1500000000:0") == Dropped()
    assert log.after("not-comparable") == Dropped()
    assert log.after("1698774369:8") == 9


def test_unknown_id_is_unknown():
    """From a replay, of another run, or invented: not guessed at."""
    log = filled(10)
    for event_id in ("1698774369:10", "1698774368:0", "1698774370:0", "nonsense", "1698774369", "", "1698774369:0\n"):
        assert log.after(event_id) == Unknown()
    dropping = filled(10, max_bytes=100)
    assert dropping.after("1698774370:0") == Unknown()
    assert dropping.after("") == Unknown()


def test_dropped_comments_make_no_id_gone():
    """Where only comments were dropped, no reader can have seen more than is here."""
    log = EventLog(60)
    for event in (GREETING, GREETING, output(0)):
        log.append(event)
    log.append(output(1))
    assert log.dropped == 3
    comments = EventLog(10)
    for _ in range(5):
        comments.append(GREETING)
    assert comments.after("nonsense") == Unknown()


def test_ids_that_step_back_are_gone():
    """Upstream's clock was set back: what it sent before is dropped, not unknown."""
    log = EventLog(100)
    for event in (output(5), output(1), frame("output", "odd", "a"), output(2), output(3), output(4)):
        log.append(event)
    assert log.dropped == 4
    for event_id in ("1698774369:5", "1698774369:1", "odd", "1698774369:2"):
        assert log.after(event_id) == Dropped()


@pytest.mark.parametrize(
    ("event_id", "pair"),
    [("1698774369:0", (1698774369, 0)), ("0:12", (0, 12)), ("1:2:3", None), ("a:1", None), ("-1:2", None), ("", None),
     ("١:٢", None), ("1" * 20 + ":1", None)],
)  # fmt: skip
def test_ids_compare_in_the_order_of_their_events(event_id: str, pair: tuple[int, int] | None):
    """By second, then by number; other ids are recognised as such."""
    assert order(event_id) == pair


EVENTS = st.one_of(
    st.just(GREETING),
    st.builds(lambda number, size: output(number, "x" * size), st.integers(0, 50), st.integers(0, 120)),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), EVENTS),
        st.tuples(st.just("read"), st.tuples(st.integers(0, 2), st.integers(0, 300))),
        st.tuples(st.just("keep"), st.none()),
        st.tuples(st.just("restart"), st.none()),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 600))
@settings(max_examples=500, deadline=None)
def test_no_reader_misses_or_repeats_an_event(steps, max_bytes: int):
    """Appends, drops, restarts and readers of any speed: each has read a piece of the text without a gap."""
    log = EventLog(max_bytes)
    story: list[Event] = []
    cursors = [0, 0, 0]
    parts: dict[int, bytes] = {}
    for step, value in steps:
        if step == "append":
            assert log.append(value) == len(story)
            story.append(value)
        elif step in ("keep", "restart"):
            part = log.chunk_from(max((first for first in parts), default=0))
            parts[part.first] = part.dump()
            # As the store lets them go: those before the one that the oldest event still kept is in.
            oldest = max(first for first in parts if first <= log.dropped)
            parts = {first: kept for first, kept in parts.items() if first >= oldest}
            if step == "restart":
                log = EventLog.from_chunks([parts[first] for first in sorted(parts)], max_bytes)
        else:
            reader, limit = value
            cursor = cursors[reader]
            if log.is_behind(cursor):
                with pytest.raises(Behind):
                    log.read(cursor, limit)
                cursor = log.dropped  # as a reader who takes what there is
            data, cursors[reader] = log.read(cursor, limit)
            events = story[cursor : cursors[reader]]
            assert data == b"".join(event.raw for event in events)
            assert len(data) <= limit or len(events) == 1
            assert events or cursor == len(story)
            assert cursors[reader] == len(story) or len(data) + len(story[cursors[reader]].raw) > limit
        kept = story[log.dropped :]
        assert log.end == len(story)
        assert log.size == sum(len(event.raw) for event in kept)
        assert log.size <= max_bytes or len(kept) == 1
        # Nothing is dropped that there was room for.
        assert not log.dropped or len(kept) == 1 or log.size + len(story[log.dropped - 1].raw) > max_bytes
    check_ids(log, story)


@given(STEPS, st.integers(1, 600))
@settings(max_examples=100, deadline=None)
def test_long_events_are_found_and_dropped_as_others_are(steps, max_bytes: int):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(event_log, "LONG", 60)
        test_no_reader_misses_or_repeats_an_event.hypothesis.inner_test(steps, max_bytes)


def test_id_in_a_long_text_is_none():
    """A long event is not searched: its own id is known."""
    log = EventLog(10 * event_log.LONG)
    log.append(output(1, "x" * event_log.LONG + "\rid: 7:7\n"))
    log.append(output(2))
    assert log.after("7:7") == Unknown()
    again = EventLog.from_chunks([log.chunk_from(0).dump()], 10 * event_log.LONG)
    for each in (log, again):
        assert [each.after(f"1698774369:{number}") for number in (1, 2)] == [1, 2]


def check_ids(log: EventLog, story: list[Event]) -> None:
    """Each event's id resumes after it, unless the event was dropped."""
    kept = {}
    for number in range(len(story) - 1, log.dropped - 1, -1):
        if story[number].id:
            kept[story[number].id] = number + 1
    for event in story:
        if event.id:
            assert log.after(event.id) == kept.get(event.id, Dropped())
    ids = [event.id for event in story if event.id]
    assert log.last_id == (ids[-1] if ids else None)
