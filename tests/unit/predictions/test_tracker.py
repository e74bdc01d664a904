"""Runs that the tracker follows to their end."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from gateway.domain.records import Kind, Run, RunState, Status
from gateway.domain.run_end import RunEnded
from gateway.domain.upstream_response import Answer
from gateway.errors import StoreUnavailable, UpstreamTimeout, UpstreamUnreadable
from gateway.predictions.events import Listener, PredictionEvents
from gateway.predictions.ports.predictions import AdvanceOutcome
from gateway.predictions.tracker import Tracker
from tests.support.clock import START, ManualClock, settle
from tests.support.fakes import AWAY, Call, FakeObserver, FakeStore, FakeUpstream, answer, free
from tests.support.records import ended, intent, live, run_ended


def said(status: str, **fields: object) -> bytes:
    return json.dumps({"id": "uprun1", "status": status, **fields}).encode()


def never_kept(run: Run, document: bytes, at: float) -> None:
    """Nothing is kept for later requests here."""


class Replicate:
    """An upstream whose run is in a state; `trouble` is answered or raised instead while it is set."""

    def __init__(self, upstream: FakeUpstream) -> None:
        self.upstream = upstream
        self.body = said("starting")
        self.trouble: int | Exception | None = None
        self.cancel: int | Exception = 200
        upstream.script = self.answer

    def answer(self, call: Call):
        said_ = self.cancel if call.method == "POST" else self.trouble
        if isinstance(said_, Exception):
            raise said_
        return answer(said_ or 200, self.body)

    @property
    def reads(self) -> int:
        return self.upstream.count("predictions.get")

    @property
    def cancels(self) -> int:
        return self.upstream.count("predictions.cancel")


@pytest.fixture
def replicate(upstream: FakeUpstream) -> Replicate:
    return Replicate(upstream)


def make_tracker(
    store: FakeStore,
    upstream: FakeUpstream,
    clock: ManualClock,
    observer: FakeObserver,
    events: PredictionEvents | None = None,
    **settings: Any,
) -> Tracker:
    return Tracker(
        store,
        upstream,
        clock,
        events or PredictionEvents(clock, observer),
        observer,
        requests_per_minute=lambda: 3000.0,
        keep_until=never_kept,
        settlement_of=free,
        **settings,
    )


@pytest.fixture
async def impatient(
    store: FakeStore, upstream: FakeUpstream, clock: ManualClock, observer: FakeObserver
) -> AsyncIterator[Tracker]:
    """A tracker that gives up after ten minutes."""
    made = make_tracker(store, upstream, clock, observer, unreadable_seconds=lambda: 600.0)
    yield made
    await made.close()


@pytest.fixture
def events(clock: ManualClock, observer: FakeObserver) -> PredictionEvents:
    made = PredictionEvents(clock, observer)
    made.add_ended_listener(
        Listener.PREDICTIONS, lambda end: observer.prediction_finished(end.run.team, end.run.status)
    )
    return made


@pytest.fixture
async def tracker(
    store: FakeStore, upstream: FakeUpstream, clock: ManualClock, observer: FakeObserver, events: PredictionEvents
) -> AsyncIterator[Tracker]:
    made = make_tracker(store, upstream, clock, observer, events)
    yield made
    await made.close()


@pytest.fixture
def run(store: FakeStore) -> Run:
    made = live(intended_at=START, live_at=START)
    store.runs[made.id] = made
    return made


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


HOUR = 3600.0
UNREADABLE = [
    b"",
    b"<html>busy</html>",
    said("reticulating"),
    b'{"status": "succeeded"}',
    b"[]",
    b'{"id": 1, "status": 2}',
    b'{"id": "uprun2", "status": "succeeded", "output": "of another"}',
]
ENDED_AT = "2025-11-24T16:00:02Z"


@pytest.mark.parametrize("kind", Kind)
async def test_run_that_cannot_be_read_fails_after_a_day(kind, tracker, replicate, store, clock, caplog):
    """It is charged at its estimate with a doubt, logged once, and polled ever more rarely until then."""
    run = store.runs["run1"] = live(kind=kind, document=said("starting"), intended_at=START, live_at=START)
    tracked = tracker.follow(run)
    await clock.advance(1)
    replicate.body = b"<html>busy</html>"
    operation = "trainings.get" if kind is Kind.TRAINING else "predictions.get"
    before = replicate.upstream.count(operation)
    await clock.advance(300)
    assert replicate.upstream.count(operation) - before < 55
    assert [record.message for record in caplog.records].count("upstream's answer is no prediction") == 1
    await clock.advance(HOUR)
    before = replicate.upstream.count(operation)
    for _ in range(23):
        await clock.advance(HOUR - 20)
    assert replicate.upstream.count(operation) - before < 24 * 61
    assert tracked.run.status is Status.STARTING
    await clock.advance(HOUR)
    assert (tracked.run.status, tracked.run.state) == (Status.FAILED, RunState.ENDED)
    assert b"cannot be read" in tracked.run.document
    settled = store.settled[run.id]
    assert (settled.at_estimate, settled.reason) == (True, "failed; run-unreadable")
    assert [record.message for record in caplog.records].count("upstream's answer is no prediction") == 1


@pytest.mark.parametrize("body", UNREADABLE)
async def test_only_the_time_since_the_last_readable_answer_counts(body, impatient, replicate, store, clock):
    """Whatever it is that cannot be read."""
    store.runs["run1"] = run = live(document=said("starting"), intended_at=START, live_at=START)
    tracked = impatient.follow(run)
    await clock.advance(1)
    replicate.body = body
    await clock.advance(500)
    assert store.runs[run.id].unreadable_since is not None
    replicate.body = said("starting")
    await clock.advance(60)
    assert store.runs[run.id].unreadable_since is None
    replicate.body = body
    await clock.advance(500)
    assert tracked.run.status is Status.STARTING
    await clock.advance(200)
    assert tracked.run.status is Status.FAILED


async def test_time_without_a_readable_answer_survives_a_restart(replicate, run, store, upstream, clock, observer):
    """A process that starts every day still ends such a run."""
    store.runs[run.id] = live(document=said("starting"), live_at=START, unreadable_since=START - 86_390)
    replicate.body = b""
    tracker = make_tracker(store, upstream, clock, observer)
    try:
        assert await tracker.resume() == 1
        await clock.advance(61)
        assert store.runs[run.id].status is Status.FAILED
    finally:
        await tracker.close()


async def test_old_run_is_polled_at_once_when_this_process_goes_on_with_it(
    replicate, run, store, upstream, clock, observer
):
    """After a restart, or when its node has died: it may have ended long ago."""
    store.runs[run.id] = live(document=said("processing"), live_at=START - 3600)
    tracker = make_tracker(store, upstream, clock, observer)
    replicate.body = said("succeeded")
    try:
        assert await tracker.resume() == 1
        await clock.advance(0.1)
        assert store.runs[run.id].status is Status.SUCCEEDED
    finally:
        await tracker.close()


@pytest.mark.parametrize("trouble", [UpstreamTimeout("late"), 429])
async def test_no_answer_about_a_run_does_not_end_it(trouble, impatient, replicate, run, store, clock):
    """Upstream is away, or throttles the gateway: that says nothing of the run."""
    tracked = impatient.follow(run)
    replicate.trouble = trouble
    await clock.advance(1000)
    assert tracked.run.status is Status.STARTING
    assert store.runs[run.id].unreadable_since is None


async def test_errors_instead_of_a_run_end_it_in_time(impatient, replicate, run, store, clock):
    """A 500 for one run, forever, does not keep its reservation forever. It delays no poll meanwhile."""
    store.runs[run.id] = run = live(document=said("starting"), intended_at=START, live_at=START)
    tracked = impatient.follow(run)
    replicate.trouble = 500
    reads = replicate.reads
    await clock.advance(10)
    assert replicate.reads - reads > 20
    await clock.advance(620)
    assert tracked.run.status is Status.FAILED


@pytest.mark.parametrize("trouble", [UpstreamUnreadable("Too large."), 400, 403, 410])
async def test_answers_that_are_not_used_end_a_run_in_time(trouble, impatient, replicate, run, store, clock, caplog):
    """A model that writes more logs than the gateway reads does not keep its reservation forever; logged once."""
    store.runs[run.id] = run = live(document=said("starting"), intended_at=START, live_at=START)
    tracked = impatient.follow(run)
    replicate.trouble = trouble
    await clock.advance(700)
    assert tracked.run.status is Status.FAILED
    assert store.settled[run.id].reason == "failed; run-unreadable"
    warnings = [each.message for each in caplog.records if each.levelname == "WARNING"]
    assert warnings == ["upstream's answer cannot be used"]


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


def asked(store: FakeStore, run: Run) -> Run:
    store.runs[run.id] = changed = live(intended_at=START, live_at=START, cancel_asked_at=START)
    return changed


class TestCancel:
    """The last caller has left."""

    async def test_cancel_is_sent_once(self, tracker, replicate, run, clock, store, observer):
        """However often it is requested; the response updates the run."""
        tracked = tracker.follow(run)
        replicate.body = said("canceled")
        for _ in range(3):
            tracker.cancel_asked(asked(store, run))
        await clock.advance(0.01)
        assert replicate.cancels == 1
        await clock.advance(5)
        assert tracked.run.status is Status.CANCELED
        assert (replicate.cancels, tracker.active) == (1, 0)
        assert [status for _, status in observer.finished] == [Status.CANCELED]

    async def test_cancel_is_not_repeated_while_the_run_goes_on(self, tracker, replicate, run, clock, store):
        """A cancel is asynchronous: the run may still succeed, and then it has succeeded."""
        tracked = tracker.follow(run)
        replicate.body = said("processing")
        tracker.cancel_asked(asked(store, run))
        await clock.advance(60)
        assert replicate.cancels == 1
        replicate.body = said("succeeded", output="x")
        await clock.advance(11)
        assert tracked.run.status is Status.SUCCEEDED

    @pytest.mark.parametrize("failure", [500, 503, 404, 429, UpstreamTimeout("slow")])
    async def test_cancel_is_retried_until_upstream_answers(self, failure, tracker, replicate, run, clock, store):
        """A run without callers does not go on costing because one request was lost."""
        replicate.cancel = failure
        tracker.follow(run)
        tracker.cancel_asked(asked(store, run))
        await clock.advance(3.5)
        assert replicate.cancels == 3
        await clock.advance(300)
        tries = replicate.cancels
        assert tries < 20
        replicate.cancel = 200
        await clock.advance(31)
        assert replicate.cancels == tries + 1
        await clock.advance(300)
        assert replicate.cancels == tries + 1

    async def test_refused_cancel_is_not_retried(self, tracker, replicate, run, clock, store):
        """Polling goes on."""
        replicate.cancel = 422
        tracked = tracker.follow(run)
        tracker.cancel_asked(asked(store, run))
        await clock.advance(100)
        assert replicate.cancels == 1
        replicate.body = said("succeeded")
        await clock.advance(11)
        assert tracked.run.status is Status.SUCCEEDED

    async def test_end_stops_the_cancel(self, tracker, replicate, run, clock, store):
        """A run that ended by itself is not cancelled afterwards."""
        replicate.cancel = 503
        tracker.follow(run)
        tracker.cancel_asked(asked(store, run))
        await clock.advance(2)
        replicate.body = said("succeeded")
        await clock.advance(1)
        tries = replicate.cancels
        await clock.advance(100)
        assert (replicate.cancels, tracker.active) == (tries, 0)

    async def test_unknown_run_is_not_cancelled(self, tracker, replicate, run, clock):
        """A run that ended meanwhile needs no cancel."""
        tracker.cancel_asked(msgspec.structs.replace(run, state=RunState.ENDED, status=Status.SUCCEEDED))
        await clock.advance(10)
        assert (tracker.active, replicate.cancels) == (0, 0)

    async def test_cancel_is_not_repeated_while_the_store_is_unavailable(self, tracker, replicate, run, clock, store):
        """Upstream has answered already; only the record is retried."""
        tracker.follow(run)
        replicate.body = said("canceled")
        store.trouble = AWAY
        tracker.cancel_asked(asked(store, run))
        await clock.advance(10)
        assert replicate.cancels == 1


class TestRestart:
    """Runs outlive the process."""

    async def test_restart_follows_open_runs(self, tracker, replicate, store, clock):
        """More than one page of them; intents and ended runs are not followed."""
        for number in range(1203):
            run = live(f"r{number:05}", intended_at=START, live_at=START)
            store.runs[run.id] = run
        store.runs["i"] = intent("i")
        assert await tracker.resume() == 1203
        assert tracker.active == 1203

    async def test_restart_repeats_a_requested_cancel(self, tracker, replicate, run, store, clock):
        """Whether upstream received it is unknown."""
        asked(store, run)
        assert await tracker.resume() == 1
        await clock.advance(0.01)
        assert replicate.cancels == 1

    async def test_closing_stops_following_and_wakes_waiters(
        self, tracker, replicate, run, store, clock, upstream, observer
    ):
        """The next start continues with the run where it was."""
        tracked = tracker.follow(run)
        closing = asyncio.Event()
        waiting = asyncio.create_task(tracked.wait_until(lambda _: closing.is_set(), 15))
        await clock.advance(1)
        closing.set()
        await tracker.close()
        assert tracker.active == 0
        assert (await waiting).status is Status.STARTING
        reads = replicate.reads
        await clock.advance(100)
        assert replicate.reads == reads
        assert store.runs[run.id].state is RunState.LIVE

        replicate.body = said("succeeded")
        again = make_tracker(store, upstream, clock, observer)
        await again.resume()
        await clock.advance(11)
        assert store.runs[run.id].status is Status.SUCCEEDED
        await again.close()

    async def test_closed_tracker_follows_no_new_run(self, tracker, replicate, run, clock):
        """A create that completes during shutdown is followed after the next start."""
        await tracker.close()
        assert tracker.follow(run).run is run
        await clock.advance(10)
        assert (replicate.reads, tracker.active) == (0, 0)

    async def test_ended_run_is_not_followed(self, tracker, replicate, clock):
        """Its status cannot change any more."""
        tracked = tracker.follow(live(state=RunState.ENDED, status=Status.SUCCEEDED))
        await clock.advance(10)
        assert (tracked.run.status, replicate.reads, tracker.active) == (Status.SUCCEEDED, 0, 0)


class ForgetfulStore(FakeStore):
    """Writes the end, and does not get to say so: the connection, or the time, was over first."""

    async def advance(self, run_id, **news) -> AdvanceOutcome:
        outcome = await super().advance(run_id, **news)
        if isinstance(outcome, RunEnded):
            raise StoreUnavailable("The gateway's store did not answer in time.")
        return outcome


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


class TestDefects:
    """What should never fail fails: the run is followed on all the same."""

    async def test_crashed_poll_is_counted_and_retried_with_backoff(
        self, tracker, replicate, run, clock, observer, caplog
    ):
        """A defect does not silently stop following, nor fill the log at the rate of a young run's polls."""
        replicate.trouble = RuntimeError("a defect")
        tracked = tracker.follow(run)
        await clock.advance(60)
        assert 5 <= replicate.reads <= 8, "after 1, 2, 4, 8, 16 and 30 seconds"
        assert observer.of("tracking_crashed") == ["poll"] * replicate.reads
        assert {each.getMessage() for each in caplog.records} == {"following a run crashed"}
        replicate.trouble, replicate.body = None, said("succeeded")
        await clock.advance(31)
        assert tracked.run.status is Status.SUCCEEDED
        assert observer.finished == [("red", Status.SUCCEEDED)]

    async def test_polling_is_normal_again_after_crashes(self, tracker, replicate, run, clock):
        replicate.trouble = RuntimeError("a defect")
        tracked = tracker.follow(run)
        await clock.advance(1)
        replicate.trouble = None
        await clock.advance(5)
        reads = replicate.reads
        await clock.advance(2)
        assert replicate.reads >= reads + 3
        tracked.poll_now()
        await settle()
        assert replicate.reads >= reads + 4

    async def test_crashing_store_delays_the_end(self, replicate, run, clock, observer, upstream, store, events):
        """Not only the store's own errors are survived."""
        tracker = make_tracker(store, upstream, clock, observer, events)
        store.trouble = TypeError("a defect")
        replicate.body = said("succeeded")
        tracked = tracker.follow(run)
        await clock.advance(10)
        assert tracked.run.status is Status.STARTING
        store.trouble = None
        await clock.advance(31)
        assert tracked.run.status is Status.SUCCEEDED
        assert observer.finished == [("red", Status.SUCCEEDED)]
        assert set(observer.of("tracking_crashed")) == {"poll"}
        await tracker.close()

    async def test_crashed_cancel_is_counted_and_retried(self, tracker, replicate, run, clock, store, observer):
        """A run without callers does not go on costing because of a defect."""
        replicate.cancel = RuntimeError("a defect")
        tracker.follow(run)
        tracker.cancel_asked(asked(store, run))
        await clock.advance(3.5)
        assert replicate.cancels == 3
        assert observer.of("tracking_crashed") == ["cancel"] * 3
        replicate.cancel = 200
        await clock.advance(31)
        assert replicate.cancels == 4
        await clock.advance(300)
        assert replicate.cancels == 4

    async def test_cancel_is_retried_after_a_day_of_failures(self, tracker, replicate, run, clock, store):
        """The pause stays at half a minute, however many have failed."""
        replicate.cancel = 503
        tracker.follow(run)
        tracker.cancel_asked(asked(store, run))
        await clock.advance(86_400)
        tries = replicate.cancels
        assert tries > 2000
        await clock.advance(31)
        assert replicate.cancels > tries


class TestReportedEnds:
    """Ends that another step than a poll's has recorded."""

    @pytest.fixture
    def over(self, store: FakeStore) -> Run:
        made = ended("run7")
        store.runs[made.id] = made
        return made

    async def test_listeners_get_the_end_at_once(self, tracker, over, store, observer):
        """A create that upstream answered with a finished run."""
        await tracker.report_end(over, None)
        assert observer.finished == [("red", Status.SUCCEEDED)]
        assert store.calls == ["ended_run"]

    async def test_known_end_is_not_read(self, tracker, over, store, observer):
        """The step that recorded it has returned it."""
        await tracker.report_end(over, run_ended(over))
        assert observer.finished == [("red", Status.SUCCEEDED)]
        assert store.calls == []

    @pytest.mark.parametrize("trouble", [AWAY, RuntimeError("a defect")])
    async def test_listeners_get_the_end_later_while_the_store_is_unavailable(
        self, tracker, over, store, observer, clock, trouble
    ):
        store.trouble = trouble
        await tracker.report_end(over, None)
        await clock.advance(10)
        assert observer.finished == []
        store.trouble = None
        await clock.advance(31)
        assert observer.finished == [("red", Status.SUCCEEDED)]
        await clock.advance(300)
        assert observer.finished == [("red", Status.SUCCEEDED)]

    async def test_deleted_run_is_not_retried(self, tracker, store, observer, clock):
        await tracker.report_end(ended("run8"), None)
        await clock.advance(300)
        assert store.calls == ["ended_run"]
        assert observer.finished == []

    async def test_closing_stops_the_retries(self, tracker, over, store, clock):
        store.trouble = AWAY
        await tracker.report_end(over, None)
        await tracker.close()
        calls = len(store.calls)
        await clock.advance(300)
        assert len(store.calls) == calls


async def test_end_with_a_lost_result_is_reported_once_as_stored(upstream, replicate, clock, observer):
    """Its settlement is the one that was recorded, not one computed again."""
    store, reported = ForgetfulStore(), []
    run = store.runs["run1"] = live(intended_at=START, live_at=START)
    events = PredictionEvents(clock, observer)
    events.add_ended_listener(Listener.ACCOUNTING, reported.append)
    tracker = make_tracker(store, upstream, clock, observer, events)
    tracker.follow(run)
    replicate.body = said("succeeded")
    await clock.advance(60)
    await tracker.close()
    (end,) = reported
    assert end.settlement is store.settled["run1"]
    assert store.calls.count("ended_run") == 1


class TestDroppedDocuments:
    """Runs whose documents do not fit into memory: the store has them."""

    @pytest.fixture
    async def forgetful(
        self, store: FakeStore, upstream: FakeUpstream, clock: ManualClock, observer: FakeObserver
    ) -> AsyncIterator[Tracker]:
        made = make_tracker(
            store, upstream, clock, observer, unreadable_seconds=lambda: 600.0, max_document_bytes=lambda: 1
        )
        yield made
        await made.close()

    async def test_equal_answers_are_not_recorded_again(self, forgetful, replicate, store, clock):
        run = store.runs["run1"] = live(document=said("starting"), live_at=START)
        replicate.body = said("starting")
        tracked = forgetful.follow(run)
        assert not tracked.is_whole
        await clock.advance(5)
        assert replicate.reads > 1
        assert "advance" not in store.calls
        assert (await forgetful.newest(run)).document == said("starting")

    @pytest.mark.parametrize("trouble", ["unknown", "unreadable"])
    async def test_run_that_is_given_up_keeps_its_document(self, forgetful, replicate, store, clock, trouble):
        document = json.dumps(json.loads(said("starting")) | {"input": {"prompt": "hi"}}).encode()
        run = store.runs["run1"] = live(document=document, live_at=START)
        tracked = forgetful.follow(run)
        if trouble == "unknown":
            replicate.trouble = 404
        else:
            replicate.body = b"<html>"
        await clock.advance(700)
        ended = json.loads(tracked.run.document)
        assert (ended["status"], ended["input"]) == ("failed", {"prompt": "hi"})
        assert forgetful.document_bytes == 0
