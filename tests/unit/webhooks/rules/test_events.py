"""Which webhook events a caller is due."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.records import Status
from gateway.webhooks.rules.events import (
    DEFAULT,
    THROTTLE_SECONDS,
    Event,
    ProgressSnapshot,
    Sent,
    caught_up,
    due,
    snapshot_of,
    wanted,
)
from tests.support.prediction_views import view

ALL = frozenset(Event)
START, OUTPUT, LOGS, COMPLETED = Event.START, Event.OUTPUT, Event.LOGS, Event.COMPLETED


def told_in_turn(
    looks: list[tuple[float, ProgressSnapshot]], events: frozenset[Event] = ALL
) -> list[tuple[float, Event]]:
    """Look once after the other, and again whenever something was held back; list what was due when."""
    reported, found, again = Sent(), [], None
    for at, moment in looks:
        if again is not None and again[0] < at:
            result = due(reported, again[1], events, again[0])
            reported, found = result.sent, found + [(again[0], event) for event in result.events]
        result = due(reported, moment, events, at)
        reported, found = result.sent, found + [(at, event) for event in result.events]
        again = None if result.again_at is None else (result.again_at, moment)
    return found


def running(output: str = "", logs: str = "") -> ProgressSnapshot:
    return ProgressSnapshot(Status.PROCESSING, True, output.encode(), logs.encode())


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[float, ProgressSnapshot]]:
    """A prediction's life as it is looked at: forward, with looks left out, doubled, and after its end."""
    at, output, logs, looks = 0.0, b"", b"", []
    for _ in range(draw(st.integers(0, 12))):
        at += draw(st.sampled_from([0.0, 0.1, 0.3, 0.5, 2.0]))
        status = draw(st.sampled_from([Status.STARTING, Status.PROCESSING])) if not looks else Status.PROCESSING
        if status is Status.PROCESSING:
            output += draw(st.sampled_from([b"", b"o"]))
            logs += draw(st.sampled_from([b"", b"l"]))
        looks.append((at, ProgressSnapshot(status, status is Status.PROCESSING, output, logs)))
    if draw(st.booleans()):
        at += draw(st.sampled_from([0.0, 0.2, 3.0]))
        end = draw(st.sampled_from([s for s in Status if s.is_terminal]))
        moment = (
            ProgressSnapshot(end)
            if end in (Status.CANCELED, Status.ABORTED)
            else ProgressSnapshot(end, True, output + b"x", logs)
        )
        looks += [(at, moment)] * draw(st.integers(1, 3))
    return looks


filters = st.one_of(st.just(DEFAULT), st.frozensets(st.sampled_from(list(Event)), min_size=1))


@given(lives(), filters)
def test_events_come_in_order_once_and_as_asked(life: list[tuple[float, ProgressSnapshot]], events: frozenset[Event]):
    """`start` once and first, `completed` once and last, nothing that was not asked for, and never too often."""
    found = told_in_turn(life, events)
    names = [event for _, event in found]
    assert set(names) <= events
    assert names.count(START) <= 1
    assert START not in names[1:]
    assert names.count(COMPLETED) <= 1
    assert COMPLETED not in names[:-1]
    times = [at for at, event in found if event in (OUTPUT, LOGS)]
    assert all(later >= earlier + THROTTLE_SECONDS for earlier, later in itertools.pairwise(times))


@given(lives(), filters)
def test_end_is_always_sent(life: list[tuple[float, ProgressSnapshot]], events: frozenset[Event]):
    """Whatever was seen or missed on the way, a receiver that wants the end gets it."""
    has_ended = any(moment.status.is_terminal for _, moment in life)
    assert (COMPLETED in [event for _, event in told_in_turn(life, events)]) == (has_ended and COMPLETED in events)


@given(lives(), filters)
def test_throttled_event_is_sent_later(life: list[tuple[float, ProgressSnapshot]], events: frozenset[Event]):
    """The last output before a long silence is not lost to the throttle."""
    reported = Sent()
    for at, moment in life:
        result = due(reported, moment, events, at)
        reported = result.sent
        if result.again_at is not None:
            later = due(reported, moment, events, result.again_at)
            assert [event for event in later.events if event in (OUTPUT, LOGS)]
            assert later.again_at is None


@given(lives(), filters)
def test_events_sent_before_a_restart_are_not_repeated(
    life: list[tuple[float, ProgressSnapshot]], events: frozenset[Event]
):
    """A process that continues a run sends what is new from then on."""
    for _, moment in life:
        found = due(caught_up(moment), moment, events, 0.0).events
        assert found == ((COMPLETED,) if moment.status.is_terminal and COMPLETED in events else ())


def test_full_life_of_a_run():
    """The usual case, event by event."""
    life = [
        (0.0, ProgressSnapshot(Status.STARTING)),
        (1.0, running()),
        (1.1, running(logs="a")),
        (1.2, running("b", "a")),
        (2.0, running("bc", "ad")),
        (9.0, ProgressSnapshot(Status.SUCCEEDED, True, b"bce", b"ad")),
    ]
    expected = [(1.0, START), (1.1, LOGS), (1.6, OUTPUT), (2.1, OUTPUT), (9.0, OUTPUT), (9.0, COMPLETED)]
    assert told_in_turn([*life[:5], (2.2, running("bc", "ad")), life[5]]) == expected


def test_finished_run_sends_its_whole_life():
    """A hit, or a run faster than a poll, sends what Replicate sends of a quick run."""
    over = ProgressSnapshot(Status.SUCCEEDED, True, b"o", b"l")
    assert due(Sent(), over, ALL, 0.0).events == (START, OUTPUT, COMPLETED)
    assert due(Sent(), over, DEFAULT, 0.0).events == (OUTPUT, COMPLETED)
    assert due(Sent(), over, frozenset({LOGS, COMPLETED}), 0.0).events == (LOGS, COMPLETED)
    assert due(Sent(), over, frozenset({START}), 0.0).events == (START,)


@pytest.mark.parametrize("status", [Status.CANCELED, Status.ABORTED])
def test_cancelled_prediction_sends_only_its_end(status: Status):
    """It has no output, and may never have started."""
    assert due(Sent(), ProgressSnapshot(status), ALL, 0.0).events == (COMPLETED,)


def test_no_filter_means_output_and_completed():
    """As Replicate has it; an empty list is no filter."""
    assert wanted(None) == wanted([]) == DEFAULT == {"output", "completed"}
    assert wanted(["logs"]) == {"logs"}


@pytest.mark.parametrize(
    ("fields", "has_started", "has_output", "has_logs"),
    [
        ({"status": "starting", "logs": ""}, False, False, False),
        ({"status": "starting", "output": None, "logs": None}, False, False, False),
        ({"status": "processing", "output": None}, True, False, False),
        ({"status": "processing", "output": [], "logs": "x"}, True, True, True),
        ({"status": "failed", "started_at": None, "error": "no"}, False, False, False),
        ({"status": "failed", "started_at": "2026-01-01T00:00:00Z"}, True, False, False),
        ({"status": "canceled", "started_at": "2026-01-01T00:00:00Z", "output": ["a"]}, False, False, False),
    ],
)
def test_state_is_read_from_a_document(fields: dict[str, Any], has_started: bool, has_output: bool, has_logs: bool):
    """Both forms of upstream's responses are understood."""
    moment = snapshot_of(view(fields))
    assert (moment.has_started, bool(moment.output), bool(moment.logs)) == (has_started, has_output, has_logs)


def test_cancelled_prediction_on_a_live_run_is_over():
    """The run's later output is not sent."""
    moment = snapshot_of(view({"status": "processing", "output": ["a"]}, canceled_at=1.0))
    assert moment == ProgressSnapshot(Status.CANCELED)


def test_unreadable_document_is_refused():
    """Damage is distinguished from silence."""
    for document in (b"", b"[]", b"{", json.dumps({"output": 1})[:-1].encode()):
        with pytest.raises(ValueError, match="not a prediction"):
            snapshot_of(view({"status": "processing"}, document=document))
