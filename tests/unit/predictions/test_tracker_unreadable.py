"""Runs about which upstream gives no readable answer."""

from collections.abc import AsyncIterator

import pytest

from gateway.domain.records import Kind, RunState, Status
from gateway.errors import UpstreamTimeout, UpstreamUnreadable
from gateway.predictions.tracker import Tracker
from tests.support.clock import START, ManualClock
from tests.support.fakes import FakeObserver, FakeStore, FakeUpstream
from tests.support.records import live
from tests.support.tracked_runs import make_tracker, said


@pytest.fixture
async def impatient(
    store: FakeStore, upstream: FakeUpstream, clock: ManualClock, observer: FakeObserver
) -> AsyncIterator[Tracker]:
    """A tracker that gives up after ten minutes."""
    made = make_tracker(store, upstream, clock, observer, unreadable_seconds=lambda: 600.0)
    yield made
    await made.close()


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
