"""Cancel is counted: it ends one caller's prediction, and the run only with the last."""

import asyncio

from gateway.core.records import Cancellation, RunState, Sight, Source, Status
from gateway.ports import Store
from tests.contract.records import NOW, ended, live, prediction


async def join(store: Store, count: int) -> list[str]:
    """Let several predictions share one run; return their ids."""
    ids = [f"p{n}" for n in range(count)]
    for prediction_id in ids:
        await store.record_created(live(), prediction(prediction_id, source=Source.JOINED))
    return ids


async def test_the_only_caller_is_the_last(store: Store) -> None:
    await store.record_created(live(), prediction())
    sight = Sight(prediction(canceled_at=NOW + 1), live(cancel_asked_at=NOW + 1))
    assert await store.cancel("p1", NOW + 1) == Cancellation(sight, changed=True, is_last=True)
    assert await store.prediction("p1") == sight


async def test_a_second_cancel_changes_nothing(store: Store) -> None:
    """A caller who presses the button twice asks upstream once, and the time of the first press stays."""
    await store.record_created(live(), prediction())
    first = await store.cancel("p1", NOW + 1)
    assert first is not None
    assert await store.cancel("p1", NOW + 2) == Cancellation(first.sight, changed=False, is_last=False)


async def test_the_others_keep_their_run(store: Store) -> None:
    """Two callers share an image; one leaves; the other gets it."""
    await join(store, 2)
    first = await store.cancel("p0", NOW + 1)
    assert first is not None
    assert (first.changed, first.is_last, first.sight.run) == (True, False, live())
    other = await store.prediction("p1")
    assert other is not None
    assert other.prediction.canceled_at is None
    second = await store.cancel("p1", NOW + 2)
    assert second is not None
    assert (second.changed, second.is_last, second.sight.run.cancel_asked_at) == (True, True, NOW + 2)


async def test_what_has_ended_cannot_be_cancelled(store: Store) -> None:
    await store.record_created(ended(), prediction())
    sight = Sight(prediction(), ended())
    assert await store.cancel("p1", NOW + 20) == Cancellation(sight, changed=False, is_last=False)
    assert await store.prediction("p1") == sight


async def test_a_cancelled_run_may_still_end_otherwise(store: Store) -> None:
    """Upstream had the result already: it is the truth for the run, the caller's prediction stays cancelled."""
    await store.record_created(live(), prediction())
    await store.cancel("p1", NOW + 1)
    run = await store.advance("run1", status=Status.SUCCEEDED, document=b"done", stream_url=None, at=NOW + 2)
    assert run is not None
    assert (run.state, run.cancel_asked_at) == (RunState.ENDED, NOW + 1)
    sight = await store.prediction("p1")
    assert sight is not None
    assert sight.prediction.canceled_at == NOW + 1


async def test_upstream_is_asked_once_even_if_someone_comes_late(store: Store) -> None:
    """A caller who joined after the last one had left, and leaves too, does not have upstream asked again."""
    await store.record_created(live(), prediction("p0"))
    await store.cancel("p0", NOW + 1)
    await store.record_created(live(), prediction("p1", source=Source.JOINED))
    late = await store.cancel("p1", NOW + 2)
    assert late is not None
    assert (late.changed, late.is_last, late.sight.run.cancel_asked_at) == (True, False, NOW + 1)


async def test_of_fifty_cancels_at_once_one_is_the_last(store: Store) -> None:
    """Fifty callers share a run and all leave at the same moment: upstream is asked exactly once."""
    ids = await join(store, 50)
    outcomes = await asyncio.gather(*(store.cancel(each, NOW + n) for n, each in enumerate(ids * 2)))
    cancellations = [each for each in outcomes if each is not None]
    assert len(cancellations) == 100
    assert sum(each.changed for each in cancellations) == 50
    assert sum(each.is_last for each in cancellations) == 1
    (last,) = (each for each in cancellations if each.is_last)
    sight = await store.prediction("p7")
    assert sight is not None
    assert sight.run.cancel_asked_at == last.sight.run.cancel_asked_at == last.sight.prediction.canceled_at


async def test_two_processes_cancelling_agree_on_the_last(store: Store, another) -> None:
    """Two gateways on one store, half of the callers at each."""
    ids = await join(store, 20)
    second = another()
    await second.open()
    try:
        outcomes = await asyncio.gather(*((store, second)[n % 2].cancel(each, NOW) for n, each in enumerate(ids)))
    finally:
        await second.close()
    assert [each.changed for each in outcomes] == [True] * 20
    assert sum(each.is_last for each in outcomes) == 1


async def test_a_cancel_and_an_end_at_once_leave_one_story(store: Store) -> None:
    """Either the cancel came first (and upstream is asked), or the end did (and nothing was cancelled)."""
    stories = set()
    for n in range(40):
        run_id, prediction_id = f"run{n}", f"p{n}"
        await store.record_created(live(run_id), prediction(prediction_id, run_id))
        cancel = store.cancel(prediction_id, NOW + 1)
        advance = store.advance(run_id, status=Status.SUCCEEDED, document=b"done", stream_url=None, at=NOW + 2)
        if n % 2:
            cancellation, run = await asyncio.gather(cancel, advance)
        else:
            run, cancellation = await asyncio.gather(advance, cancel)
        assert cancellation is not None
        assert run is not None
        sight = await store.prediction(prediction_id)
        assert sight is not None
        assert sight.run == run
        assert (sight.prediction.canceled_at is not None) == cancellation.changed == cancellation.is_last
        assert (run.cancel_asked_at is not None) == cancellation.is_last
        stories.add(cancellation.changed)
    assert stories == {True, False}
