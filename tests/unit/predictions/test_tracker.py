"""Runs that the tracker follows to their end."""

import asyncio
import json

import pytest

from gateway.domain.records import Kind, Run, RunState, Status
from gateway.domain.upstream_response import Answer
from gateway.errors import UpstreamTimeout
from gateway.predictions.events import Listener, PredictionEvents
from gateway.predictions.ports.predictions import AdvanceOutcome
from tests.support.clock import START, settle
from tests.support.fakes import AWAY, Call, FakeStore, answer
from tests.support.records import live
from tests.support.tracked_runs import ForgetfulStore, make_tracker, said


async def test_run_is_followed_to_its_end(tracker, replicate, run, store, clock, observer):
    """The caller sees it start, produce output and succeed; then the tracker stops polling."""
    tracked = tracker.follow(run)
    await clock.advance(1)
    replicate.body = said("processing", output=["a"])
    await clock.advance(1)
    assert (tracked.run.status, tracked.run.document) == (Status.PROCESSING, replicate.body)
    replicate.body = said("succeeded", output=["a", "b"], completed_at="2025-11-24T16:00:02Z")
    await clock.advance(1)
    kept = store.runs[run.id]
    assert tracked.run == kept
    assert (kept.state, kept.status, kept.document) == (RunState.ENDED, Status.SUCCEEDED, replicate.body)
    assert kept.ended_at == pytest.approx(1764000002.0)
    assert observer.finished == [("red", Status.SUCCEEDED)]
    assert (tracker.active, tracker.tracked(run.id)) == (0, None)
    reads = replicate.reads
    await clock.advance(100)
    assert replicate.reads == reads


async def test_polling_interval_grows_regardless_of_waiters(tracker, replicate, run, clock):
    """A hundred waiting callers cost as many polls as one."""
    tracked = tracker.follow(run)
    assert tracker.follow(run) is tracked
    waiting = [asyncio.create_task(tracked.wait_until(lambda r: r.status.is_terminal, 15)) for _ in range(100)]
    await clock.advance(60)
    assert 40 < replicate.reads < 80
    replicate.body = said("succeeded")
    await clock.advance(10)
    assert {(await task).status for task in waiting} == {Status.SUCCEEDED}


ENDED_AT = "2025-11-24T16:00:02Z"


async def test_large_documents_of_one_team_do_not_delay_those_of_another(store, upstream, clock, observer):
    """Two are polled at a time, one of each team: the first team's answers never come."""
    stuck = asyncio.Event()

    async def script(call: Call) -> Answer:
        if "slow" in call.path:
            await stuck.wait()
        return answer(200, said("succeeded", id=call.path.rpartition("/")[2]))

    upstream.script = script
    tracker = make_tracker(store, upstream, clock, observer)
    large = json.dumps(json.loads(said("starting")) | {"logs": "x" * 300_000}).encode()
    for number in range(4):
        each = store.runs[f"s{number}"] = live(f"s{number}", upstream_id=f"slow{number}", document=large, live_at=START)
        tracker.follow(each)
    other = store.runs["o"] = live("o", upstream_id="other", team="beta", document=large, live_at=START)
    followed = tracker.follow(other)
    try:
        await clock.advance(5)
        assert followed.run.status is Status.SUCCEEDED
    finally:
        stuck.set()
        await tracker.close()


@pytest.mark.parametrize("completed_at", [ENDED_AT, 5, True, "soon"])
@pytest.mark.parametrize("status", ["reticulated", None, 7])
async def test_unknown_status_with_an_end_is_a_failure(status, completed_at, tracker, replicate, run, store, clock):
    """The run ends at once, with what upstream says of its output and metrics, and with a doubt about its charge."""
    tracked = tracker.follow(run)
    await clock.advance(1)
    replicate.body = json.dumps(
        {"id": "uprun1", "status": status, "completed_at": completed_at, "metrics": {"predict_time": 2}, "logs": "x"}
    ).encode()
    await clock.advance(1)
    assert (tracked.run.status, tracked.run.state) == (Status.FAILED, RunState.ENDED)
    shown = json.loads(tracked.run.document)
    assert (shown["status"], shown["metrics"], shown["logs"]) == ("failed", {"predict_time": 2}, "x")
    assert "Replicate ended this prediction with" in shown["error"]
    assert store.settled[run.id].reason == "failed; status-unknown"


async def test_end_at_an_odd_time_is_an_end(tracker, replicate, run, clock):
    """The status is known; the time of the end is that of the poll then."""
    tracked = tracker.follow(run)
    await clock.advance(1)
    replicate.body = said("succeeded", output="x", completed_at=5)
    await clock.advance(1)
    assert tracked.run.status is Status.SUCCEEDED
    assert tracked.run.document == replicate.body
    assert tracked.run.ended_at == pytest.approx(START + 2, abs=1)


async def test_end_of_a_long_run_is_seen_within_a_tenth_of_its_duration(tracker, replicate, run, clock):
    """The end of an hour's run is noticed within ten seconds."""
    tracked = tracker.follow(run)
    await clock.advance(3600)
    replicate.body = said("failed", error="x")
    await clock.advance(10.1)
    assert tracked.run.status is Status.FAILED


async def test_404_shortly_after_the_create_is_tolerated(tracker, replicate, run, clock, observer):
    """Upstream's reads lag behind its writes; the caller notices nothing."""
    replicate.trouble = 404
    tracked = tracker.follow(run)
    await clock.advance(100)
    assert tracked.run.status is Status.STARTING
    replicate.trouble, replicate.body = None, said("succeeded")
    await clock.advance(11)
    assert tracked.run.status is Status.SUCCEEDED
    assert observer.finished == [("red", Status.SUCCEEDED)]


async def test_run_lost_upstream_fails(tracker, replicate, run, clock, observer):
    """No caller waits forever: after two minutes of 404 the prediction is failed and says why."""
    replicate.trouble = 404
    tracked = tracker.follow(run)
    await clock.advance(140)
    assert tracked.run.status is Status.FAILED
    assert "no longer knows" in json.loads(tracked.run.document)["error"]
    assert observer.finished == [("red", Status.FAILED)]
    assert tracker.active == 0


async def test_status_never_moves_back(tracker, replicate, run, clock, store):
    """A late response of upstream does not show a running prediction as starting."""
    tracked = tracker.follow(run)
    replicate.body = said("processing", output=["a"])
    await clock.advance(1)
    replicate.body = said("starting")
    await clock.advance(5)
    assert tracked.run.status is Status.PROCESSING
    assert json.loads(tracked.run.document)["output"] == ["a"]


async def test_unchanged_run_is_not_written(tracker, replicate, run, clock, store):
    """A run that does not change costs the store nothing."""
    replicate.body = run.document
    replicate.body = said("starting")
    tracker.follow(run)
    await clock.advance(60)
    assert store.calls.count("advance") == 1


@pytest.mark.parametrize("trouble", [500, 429, UpstreamTimeout("slow")])
async def test_upstream_errors_do_not_end_a_run(trouble, tracker, replicate, run, clock):
    """An outage of ten minutes does not fail the run."""
    replicate.trouble = trouble
    tracked = tracker.follow(run)
    await clock.advance(600)
    assert tracked.run.status is Status.STARTING
    replicate.trouble, replicate.body = None, said("succeeded")
    await clock.advance(11)
    assert tracked.run.status is Status.SUCCEEDED


async def test_invalid_response_does_not_end_a_run(tracker, replicate, run, clock):
    """It is ignored."""
    tracked = tracker.follow(run)
    for body in (b"<html>", b"[]", b'{"id":"x","status":"dreaming"}', b""):
        replicate.body = body
        await clock.advance(20)
    replicate.body = said("succeeded", output="\\ud83d")
    await clock.advance(11)
    assert tracked.run.status is Status.SUCCEEDED


async def test_unavailable_store_delays_the_end(tracker, replicate, run, clock, store):
    """The end is recorded as soon as the store works again."""
    tracked = tracker.follow(run)
    store.trouble = AWAY
    replicate.body = said("succeeded")
    await clock.advance(30)
    assert tracked.run.status is Status.STARTING
    store.trouble = None
    await clock.advance(11)
    assert store.runs[run.id].state is RunState.ENDED


async def test_training_is_polled_as_a_training(tracker, replicate, store, clock, upstream):
    """It has its own route."""
    run = live(kind=Kind.TRAINING, intended_at=START, live_at=START)
    store.runs[run.id] = run
    replicate.body = said("succeeded")
    tracker.follow(run)
    await clock.advance(1)
    assert upstream.calls[0].path == "/trainings/uprun1"


async def test_waiter_returns_at_the_end_or_at_its_timeout(tracker, replicate, run, clock):
    """Whichever is first; a wait that times out does not affect the run."""
    tracked = tracker.follow(run)
    assert (await tracked.wait_until(lambda r: r.status.is_terminal, 0.01)).status is Status.STARTING
    waiting = asyncio.create_task(tracked.wait_until(lambda r: r.status.is_terminal, 15))
    await settle()
    tracker.wake(run.id)
    tracker.wake("unknown")
    tracker.wake_all()
    await settle()
    assert not waiting.done()
    replicate.body = said("canceled")
    await clock.advance(1)
    assert (await waiting).status is Status.CANCELED


async def test_cancelled_waiter_affects_no_other(tracker, replicate, run, clock):
    """A caller that disconnects cancels neither the run nor another caller's wait."""
    tracked = tracker.follow(run)
    leaver, stayer = (asyncio.create_task(tracked.wait_until(lambda r: r.status.is_terminal, 15)) for _ in range(2))
    await settle()
    leaver.cancel()
    replicate.body = said("succeeded")
    await clock.advance(1)
    assert (await stayer).status is Status.SUCCEEDED
    assert replicate.cancels == 0


async def test_end_with_a_lost_result_is_the_end(upstream, replicate, clock, observer):
    """Once the store knows the end, no caller waits for the run and upstream is not polled."""
    store = ForgetfulStore()
    run = store.runs["run1"] = live(intended_at=START, live_at=START)
    tracker = make_tracker(store, upstream, clock, observer)
    tracked = tracker.follow(run)
    replicate.body = said("succeeded")
    await clock.advance(60)
    try:
        assert tracked.run.status is Status.SUCCEEDED
        assert tracker.active == 0
    finally:
        await tracker.close()


class BusyStore(FakeStore):
    """Answers when others have had their turn."""

    async def advance(self, run_id, **news) -> AdvanceOutcome:
        outcome = await super().advance(run_id, **news)
        await asyncio.sleep(0)
        return outcome


async def test_end_seen_twice_at_once_counts_once(upstream, clock, observer):
    """A poll and a webhook report it at the same moment: the run and its cost are counted once."""
    store, seen = BusyStore(), []
    run = store.runs["run1"] = live(intended_at=START, live_at=START)
    events = PredictionEvents(clock, observer)
    events.add_ended_listener(Listener.PREDICTIONS, lambda each: seen.append(each.run.status))
    tracker = make_tracker(store, upstream, clock, observer, events)
    tracker.follow(run)
    body = said("succeeded", output="x")
    await asyncio.gather(tracker.on_snapshot("run1", body), tracker.on_snapshot("run1", body))
    await tracker.close()
    assert seen == [Status.SUCCEEDED]


async def test_progress_listeners_get_each_change_and_not_the_end(tracker, events, replicate, run, store, clock):
    """A progress webhook is sent for each change while the run goes on."""
    reported: list[Run] = []
    events.add_progressed_listener(Listener.WEBHOOKS, reported.append)
    tracker.follow(run)
    await clock.advance(1)
    for body in (said("processing"), said("processing", output=["a"]), said("succeeded", output=["a"])):
        replicate.body = body
        await clock.advance(2)
    assert [each.document for each in reported[-2:]] == [said("processing"), said("processing", output=["a"])]
    assert {each.status for each in reported} <= {Status.STARTING, Status.PROCESSING}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (said("processing"), "processing"),
        (said("succeeded", output="x"), "succeeded"),
        (said("starting", output="late"), "processing"),
        (said("processing", output="late"), "processing"),
        (b'{"id": "uprun2", "status": "succeeded"}', "processing"),
        (b"not a prediction", "processing"),
    ],
)
async def test_upstream_webhooks_never_move_a_run_back(tracker, replicate, run, store, clock, body: bytes, status: str):
    """A webhook that is late, repeated, another run's, or invalid undoes nothing."""
    replicate.body = known = said("processing", output=["a", "b"])
    tracked = tracker.follow(run)
    await clock.advance(1)
    await tracker.on_snapshot("run1", body)
    assert tracked.run.status == status
    if status == "processing":
        assert tracked.run.document == known
    await tracker.on_snapshot("run9", body)
