"""Runs that the tracker follows after a restart, a defect or a lost result."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from gateway.domain.records import Run, RunState, Status
from gateway.predictions.events import Listener, PredictionEvents
from gateway.predictions.tracker import Tracker
from tests.support.clock import START, ManualClock, settle
from tests.support.fakes import AWAY, FakeObserver, FakeStore, FakeUpstream
from tests.support.records import ended, intent, live, run_ended
from tests.support.tracked_runs import ForgetfulStore, asked, make_tracker, said


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
