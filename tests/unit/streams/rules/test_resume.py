"""Where a reader resumes: at the start, after its last event, or not at all."""

import pytest

from gateway.streams.rules import replay
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.resume import (
    BEGINNING_DROPPED,
    REST_DROPPED,
    UNKNOWN,
    Complete,
    Gap,
    NotYet,
    ResumeAt,
    resume,
)
from tests.support.replays import replay as replayed

PLENTY = 1_000_000


def log_of(*ids: str, max_bytes: int = PLENTY, done: str | None = None) -> EventLog:
    log = EventLog(max_bytes)
    for event_id in ids:
        log.append(replay.frame("output", event_id, "a"))
    if done is not None:
        log.append(replay.frame("done", done, "{}"))
    return log


def test_reader_without_an_id_gets_everything():
    """A late reader misses nothing."""
    assert resume(EventLog(PLENTY), None) == ResumeAt(0)
    assert resume(log_of("10:0", "10:1", done="10:2"), None) == ResumeAt(0)


def test_reader_with_an_id_gets_what_came_after():
    """A reader that lost the connection."""
    assert resume(log_of("10:0", "10:1"), "10:0") == ResumeAt(1)
    assert resume(log_of("10:0", "10:1"), "10:1") == ResumeAt(2)


def test_reader_of_replayed_logs_goes_on_in_a_replay_without_them():
    """Another process had no room for the logs. The other events are the same."""
    body = b'{"status":"succeeded","output":["a","b"],"logs":"x","completed_at":"2023-10-31T17:46:11Z"}'
    logs = replayed(body, 0.0, most_bytes=PLENTY)[0]
    log = EventLog(PLENTY)
    for event in replayed(body, 0.0):
        log.append(event)
    assert logs.id is not None
    assert resume(log, logs.id) == ResumeAt(0)
    assert resume(log_of("9:0", done="9:1"), logs.id) == Gap(UNKNOWN)


def test_dropped_events_are_reported_as_gone():
    """Beginning in the middle, or going on beyond a gap, would look like the whole."""
    log = log_of(*(f"10:{n}" for n in range(10)), max_bytes=100)
    assert resume(log, None) == Gap(BEGINNING_DROPPED)
    assert resume(log, "10:2") == Gap(REST_DROPPED)
    assert resume(log, "9:9") == Gap(REST_DROPPED)
    assert resume(log, "10:9") == ResumeAt(10)


@pytest.mark.parametrize("log", [EventLog(PLENTY), log_of("10:0", "10:1")])
def test_event_that_may_come_again_is_waited_for(log: EventLog):
    """After a crash the gateway knows less than its readers, until upstream has sent it again."""
    assert resume(log, "10:2") == NotYet()
    assert resume(log, "11:0") == NotYet()


def test_event_that_never_was_is_not_waited_for():
    """Nor is its place guessed."""
    log = log_of("10:0", "10:5")
    for unknown in ("10:3", "9:0", "x", "1-2"):
        assert resume(log, unknown) == Gap(UNKNOWN)
    assert resume(log_of("a", "b"), "c") == Gap(UNKNOWN)
    complete = log_of("10:0", done="10:1")
    for unknown in ("10:2", "x"):
        assert resume(complete, unknown) == Gap(UNKNOWN)


def test_reader_that_saw_the_end_gets_no_more():
    """An EventSource that its page never closes reconnects forever, unless it gets a 204."""
    assert resume(log_of("10:0", done="10:1"), "10:1") == Complete()
    assert resume(log_of("10:0", done="10:1"), "10:0") == ResumeAt(1)
    for end in (replay.canceled_done(10.5), replay.lost(10.5, "gone")[-1]):
        assert end.id is not None
        assert resume(log_of("10:0"), end.id) == Complete()


def test_reader_that_missed_a_part_of_the_end_gets_it():
    """The connection broke between the error and its `done`."""
    error = replay.lost(10.5, "gone")[0]
    assert error.id is not None
    assert not isinstance(resume(log_of("10:0", done="10:1"), error.id), Complete)
