"""Between a start and the answer of upstream: ids, placeholders, discards and late answers."""

import pytest

from gateway.domain.records import Kind, PredictionView, Source, Status
from gateway.errors import Conflict
from gateway.predictions.ports.sharing import FinishedRuns, OpenRuns
from gateway.store.interface import Store
from gateway.store.sqlite import SQLiteStore
from tests.support.records import (
    NOW,
    finish,
    go,
    join,
    lead,
    live,
    prediction,
    start,
    wish,
)


async def test_id_cannot_be_started_twice(store: Store) -> None:
    """A start that is repeated by mistake neither moves a prediction nor overwrites a run."""
    await lead(store, "1", fingerprint="F")
    for again in (
        wish("1", fingerprint="F"),
        wish("1", fingerprint="G"),
        wish("2", run={"id": "run1"}),
        wish("1", run={"id": "run2"}),
    ):
        with pytest.raises(Conflict):
            await again.start(store)
    assert [run.fingerprint for run in await store.open_runs()] == ["F"]
    assert len(await store.predictions_of("run1")) == 1


async def test_unpublished_prediction_is_not_found(store: Store) -> None:
    """Until upstream has answered, no list, id or ticket shows a prediction; then all of them do."""
    await lead(store, "1", fingerprint="F")
    await join(store, "2")
    for each in ("p1", "p2"):
        assert await store.prediction(each) is None
        assert await store.prediction_by_ticket(f"ticket-{each}") is None
    for team in ("red", None):
        page = await store.predictions(team=team, kind=Kind.PREDICTION, limit=10)
        assert (page.items, page.has_newer, page.has_older) == ([], False, False)
    await store.record_created(live(), prediction("up1", "run1"))
    assert await store.prediction("p1") is None
    assert await store.prediction_by_ticket("ticket-p1") is None
    for each in ("up1", "p2"):
        assert await store.prediction(each) is not None
        assert await store.prediction_by_ticket(f"ticket-{each}") is not None
    page = await store.predictions(team="red", kind=Kind.PREDICTION, limit=10)
    assert [item.prediction.id for item in page.items if isinstance(item, PredictionView)] == ["up1", "p2"]


async def test_unpublished_predictions_leave_no_empty_pages(store: Store) -> None:
    """The newest and the oldest are unpublished: a list has no link to their positions."""
    for n in range(4):
        name = str(n)
        await start(store, name, prediction_={"created_at": NOW + n})
        if n in (1, 2):
            await store.record_created(live(f"run{n}"), prediction(f"up{n}", f"run{n}", created_at=NOW + n))
    page = await store.predictions(team="red", kind=Kind.PREDICTION, limit=2)
    assert [item.prediction.id for item in page.items if isinstance(item, PredictionView)] == ["up2", "up1"]
    assert (page.has_newer, page.has_older) == (False, False)


async def test_create_response_replaces_the_placeholder(store: Store) -> None:
    """The starter gets upstream's id and time; callers who joined keep their own."""
    await lead(store, "1", fingerprint="F", prediction_={"user": "ann", "deadline_at": NOW + 60})
    await join(store, "2")
    starter = prediction("up1", "run1", user="ann", created_at=NOW + 0.5, ticket="T", deadline_at=NOW + 60.5)
    await store.record_created(live(), starter)
    run = await store.run("run1")
    assert run == live(fingerprint="F", leader_id="up1")
    assert await store.predictions_of("run1") == [prediction("p2", "run1", source=Source.JOINED), starter]
    assert await store.prediction_by_ticket("T") == PredictionView(starter, run)
    await store.record_created(live(), starter)
    assert len(await store.predictions_of("run1")) == 2


async def test_recorded_run_is_no_longer_uncertain(store: Store) -> None:
    await lead(store, "1")
    await store.mark_uncertain("run1", NOW + 30)
    await store.mark_uncertain("run1", NOW + 40)
    run = await store.run("run1")
    assert run is not None
    assert run.uncertain_at == NOW + 30
    await store.record_created(live(), prediction("up1", "run1"))
    await store.mark_uncertain("run1", NOW + 50)
    await store.mark_uncertain("unknown", NOW + 50)
    run = await store.run("run1")
    assert run is not None
    assert run.uncertain_at is None
    await lead(store, "2")
    await store.mark_uncertain("run2", NOW)
    await store.advance("run2", status=Status.PROCESSING, document=b"early", stream_url=None, at=NOW)
    await store.record_created(live("run2"), prediction("up2", "run2"))
    run = await store.run("run2")
    assert run is not None
    assert (run.uncertain_at, run.leader_id) == (None, "up2")


async def test_discarded_intent_removes_its_predictions(store: Store) -> None:
    """Upstream refused the create: no list shows them, and the next caller starts a new run."""
    await lead(store, "1", fingerprint="F")
    await join(store, "2")
    await store.discard_intent("run1")
    assert await store.run("run1") is None
    assert await store.predictions_of("run1") == []
    assert await store.open_runs() == []
    # Their ids can be used again, so no record of them is left.
    await lead(store, "1", fingerprint="F")
    await join(store, "2")


async def test_reason_of_a_discard_is_kept_for_those_who_had_joined(store: Store) -> None:
    """They can be on another node. Where one process serves, nobody reads it."""
    await lead(store, "1", fingerprint="F")
    await join(store, "2")
    await lead(store, "3")
    await store.discard_intent("run1", b"why")
    await store.discard_intent("run3", b"nobody asks")
    kept = None if isinstance(store, SQLiteStore) else b"why"
    assert await store.create_outcome("run1") == kept
    assert await store.create_outcome("run3") is None
    await store.discard_intent("run1", b"again")
    assert await store.create_outcome("run1") == kept


async def test_created_run_cannot_be_discarded(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await join(store, "2")
    await store.discard_intent("run1")
    assert len(await store.predictions_of("run1")) == 2


async def test_late_create_response_does_not_take_the_identity(store: Store) -> None:
    """A discarded create is recorded after another run started: later callers join that other run."""
    await lead(store, "1", fingerprint="F")
    await store.discard_intent("run1")
    await lead(store, "2", fingerprint="F")
    await store.record_created(live(fingerprint="F"), prediction("up1", "run1"))
    assert await store.prediction("up1") is not None
    joined = await join(store, "3")
    assert joined.view.run.id == "run2"


async def test_lookup_for_an_estimate_does_not_join(store: Store) -> None:
    """`/gateway/estimate` says what a request would do, and changes nothing."""
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F"), NOW) is None
    led = await lead(store, "1", provisional="P")
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F", "P"), NOW) == led
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F"), NOW) is None
    await go(store, "2", fingerprint="F")
    run = await finish(store, "2")
    going = await go(store, "3", fingerprint="F", may_hit=False)
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F", "P"), NOW) == run
    assert await store.shared_run(None, OpenRuns("F", "P"), NOW) == going
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F"), NOW + 1000) == going
    await store.cancel("up3", NOW)
    assert await store.shared_run(FinishedRuns("F"), OpenRuns("F"), NOW + 1000) is None
    assert [len(await store.predictions_of(f"run{n}")) for n in (1, 2, 3)] == [1, 1, 1]
