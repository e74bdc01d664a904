"""Cancelling a shared run: it ends one caller's prediction, and the run only when no caller is left."""

import asyncio

from gateway.domain.records import Cancellation, PredictionView, RunState, Source, Status
from gateway.predictions.ports.predictions import AdvanceOutcome
from gateway.predictions.ports.sharing import Hit
from gateway.store.interface import Store
from tests.support.records import NOW, ended, finish, go, join, lead, live, moved, prediction, start


async def share(store: Store, count: int) -> list[str]:
    """Let several predictions share one run that upstream has; return their ids."""
    await go(store, "0", fingerprint="F")
    for n in range(1, count):
        await join(store, str(n))
    return ["up0", *(f"p{n}" for n in range(1, count))]


async def test_cancel_by_the_only_caller_is_the_last(store: Store) -> None:
    await store.record_created(live(), prediction())
    view = PredictionView(prediction(canceled_at=NOW + 1), live(cancel_asked_at=NOW + 1))
    assert await store.cancel("p1", NOW + 1) == Cancellation(view, changed=True, is_last=True)
    assert await store.prediction("p1") == view


async def test_second_cancel_changes_nothing(store: Store) -> None:
    """A caller who cancels twice causes one request upstream, and the time of the first cancel stays."""
    await store.record_created(live(), prediction())
    first = await store.cancel("p1", NOW + 1)
    assert first is not None
    assert await store.cancel("p1", NOW + 2) == Cancellation(first.view, changed=False, is_last=False)


async def test_repeated_cancel_is_answered_as_the_first(store: Store) -> None:
    """Its answer was lost. It is recognised by its time; a cancel by somebody else is not."""
    await share(store, 2)
    for prediction_id, at, is_last in (("up0", NOW + 1, False), ("p1", NOW + 2, True)):
        first = await store.cancel(prediction_id, at)
        assert first is not None
        assert (first.changed, first.is_last) == (True, is_last)
        assert await store.cancel(prediction_id, at, is_repeated=True) == first
        other = await store.cancel(prediction_id, at + 5, is_repeated=True)
        assert other is not None
        assert (other.changed, other.is_last) == (False, False)


async def test_repeat_of_a_cancel_that_was_not_recorded_records_it(store: Store) -> None:
    await share(store, 1)
    repeated = await store.cancel("up0", NOW + 1, is_repeated=True)
    assert repeated is not None
    assert (repeated.changed, repeated.is_last) == (True, True)


async def test_cancel_keeps_the_run_for_the_other_callers(store: Store) -> None:
    """Two callers share an image; one cancels; the other still gets it."""
    await share(store, 2)
    first = await store.cancel("up0", NOW + 1)
    assert first is not None
    assert (first.changed, first.is_last, first.view.run.cancel_asked_at) == (True, False, None)
    other = await store.prediction("p1")
    assert other is not None
    assert other.prediction.canceled_at is None
    second = await store.cancel("p1", NOW + 2)
    assert second is not None
    assert (second.changed, second.is_last, second.view.run.cancel_asked_at) == (True, True, NOW + 2)


async def test_ended_prediction_cannot_be_cancelled(store: Store) -> None:
    await store.record_created(ended(), prediction())
    view = PredictionView(prediction(), ended())
    assert await store.cancel("p1", NOW + 20) == Cancellation(view, changed=False, is_last=False)
    assert await store.prediction("p1") == view


async def test_cancelled_run_can_still_succeed(store: Store) -> None:
    """Upstream had the result already: the run has succeeded, the caller's prediction stays cancelled."""
    await store.record_created(live(), prediction())
    await store.cancel("p1", NOW + 1)
    run = moved(await store.advance("run1", status=Status.SUCCEEDED, document=b"done", stream_url=None, at=NOW + 2))
    assert (run.state, run.cancel_asked_at) == (RunState.ENDED, NOW + 1)
    view = await store.prediction("p1")
    assert view is not None
    assert view.prediction.canceled_at == NOW + 1


async def test_request_after_the_last_cancel_starts_its_own_run(store: Store) -> None:
    """Nobody joins a run that is being cancelled, and a later request does not keep it alive."""
    await share(store, 1)
    await store.cancel("up0", NOW + 1)
    late = await go(store, "1", fingerprint="F")
    assert (late.id, late.fingerprint) == ("run1", "F")
    cancellation = await store.cancel("up1", NOW + 2)
    assert cancellation is not None
    assert (cancellation.is_last, cancellation.view.run.cancel_asked_at) == (True, NOW + 2)


async def test_hit_cannot_be_cancelled(store: Store) -> None:
    """Cancelling a cache hit sends nothing upstream, even if all other callers had cancelled before the end."""
    await share(store, 1)
    await store.cancel("up0", NOW + 1)
    await finish(store, "0")
    outcome = await start(store, "1", fingerprint="F")
    assert isinstance(outcome, Hit)
    assert outcome.view == PredictionView(prediction("p1", "run0", source=Source.HIT), await store.run("run0"))
    cancellation = await store.cancel("p1", NOW + 20)
    assert cancellation is not None
    assert (cancellation.changed, cancellation.is_last) == (False, False)
    assert cancellation.view.prediction.canceled_at is None


async def test_deadline_before_the_start_aborts(store: Store) -> None:
    """After `Cancel-After` a run that had not started is `aborted`, a running one `canceled`, as at Replicate."""
    await share(store, 3)
    early = await store.cancel("p1", NOW + 1, by_deadline=True)
    await store.advance("run0", status=Status.PROCESSING, document=b"x", stream_url=None, at=NOW + 2)
    late = await store.cancel("p2", NOW + 3, by_deadline=True)
    assert early is not None
    assert late is not None
    assert early.view.prediction.final_status is Status.ABORTED
    assert late.view.prediction.final_status is Status.CANCELED
    view = await store.prediction("p1")
    assert view is not None
    assert view.prediction == early.view.prediction
    assert (late.is_last, early.is_last) == (False, False)
    again = await store.cancel("p1", NOW + 4)
    assert again is not None
    assert again.view.prediction == early.view.prediction


async def test_cancel_before_the_start_is_canceled_not_aborted(store: Store) -> None:
    await share(store, 1)
    cancellation = await store.cancel("up0", NOW + 1)
    assert cancellation is not None
    assert cancellation.view.prediction.final_status is Status.CANCELED


async def test_deadline_of_the_last_caller_cancels_the_run(store: Store) -> None:
    await share(store, 1)
    cancellation = await store.cancel("up0", NOW + 1, by_deadline=True)
    assert cancellation is not None
    assert (cancellation.is_last, cancellation.view.run.cancel_asked_at) == (True, NOW + 1)


async def test_unpublished_prediction_cannot_be_cancelled(store: Store) -> None:
    """Until the create is recorded its predictions have no public ids: a guessed id finds and cancels nothing."""
    await lead(store, "1", fingerprint="F")
    await join(store, "2")
    assert await store.cancel("p1", NOW) is None
    assert await store.cancel("p2", NOW, by_deadline=True) is None
    assert [each.canceled_at for each in await store.predictions_of("run1")] == [None, None]


async def test_fifty_concurrent_cancels_have_one_last(store: Store) -> None:
    """Fifty callers of one run cancel at the same moment: upstream gets exactly one cancel."""
    ids = await share(store, 50)
    outcomes = await asyncio.gather(*(store.cancel(each, NOW + n) for n, each in enumerate(ids * 2)))
    cancellations = [each for each in outcomes if each is not None]
    assert len(cancellations) == 100
    assert sum(each.changed for each in cancellations) == 50
    assert sum(each.is_last for each in cancellations) == 1
    (last,) = (each for each in cancellations if each.is_last)
    view = await store.prediction("p7")
    assert view is not None
    assert view.run.cancel_asked_at == last.view.run.cancel_asked_at == last.view.prediction.canceled_at


async def test_cancels_from_two_processes_have_one_last(store: Store, another) -> None:
    """Two gateways on one store, half of the callers at each."""
    ids = await share(store, 20)
    second = another()
    await second.open()
    try:
        outcomes = await asyncio.gather(*((store, second)[n % 2].cancel(each, NOW) for n, each in enumerate(ids)))
    finally:
        await second.close()
    assert [each.changed for each in outcomes] == [True] * 20
    assert sum(each.is_last for each in outcomes) == 1


async def test_concurrent_cancel_and_end_are_consistent(store: Store) -> None:
    """Either the cancel came first and upstream is asked, or the end did and nothing was cancelled."""
    stories = set()
    for n in range(40):
        run_id, prediction_id = f"run{n}", f"p{n}"
        await store.record_created(live(run_id), prediction(prediction_id, run_id))

        async def end(run_id: str = run_id) -> AdvanceOutcome:
            return await store.advance(run_id, status=Status.SUCCEEDED, document=b"done", stream_url=None, at=NOW + 2)

        cancel, advance = store.cancel(prediction_id, NOW + 1), end()
        if n % 2:
            cancellation, outcome = await asyncio.gather(cancel, advance)
        else:
            outcome, cancellation = await asyncio.gather(advance, cancel)
        assert cancellation is not None
        run = moved(outcome)
        view = await store.prediction(prediction_id)
        assert view is not None
        assert view.run == run
        assert (view.prediction.canceled_at is not None) == cancellation.changed == cancellation.is_last
        assert (run.cancel_asked_at is not None) == cancellation.is_last
        stories.add(cancellation.changed)
    assert stories == {True, False}


async def test_runs_that_nobody_waits_for_are_listed_until_they_end(store: Store) -> None:
    """A node that was not told of the cancel finds them."""
    await go(store, "1")
    await go(store, "2")
    assert await store.runs_to_cancel() == []
    await store.cancel("up1", NOW + 1)
    assert [run.id for run in await store.runs_to_cancel()] == ["run1"]
    await finish(store, "1", status=Status.CANCELED)
    assert await store.runs_to_cancel() == []
