"""Cancels that the tracker asks upstream for."""

import msgspec
import pytest

from gateway.domain.records import RunState, Status
from gateway.errors import UpstreamTimeout
from tests.support.fakes import AWAY
from tests.support.tracked_runs import asked, said


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
