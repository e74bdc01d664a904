"""More about shared runs: settling an identity, detaching, and finding runs, predictions and deadlines."""

import pytest
from msgspec.structs import replace

from gateway.domain.admission_record import Admitted, Limit
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import LimitKind
from gateway.domain.records import Kind, PredictionView, Status
from gateway.predictions.ports.sharing import Hit, Joined, Started
from gateway.store.interface import Store
from tests.support.audit import PURGE
from tests.support.records import (
    NOW,
    ended,
    finish,
    go,
    idempotency,
    intent,
    join,
    lead,
    live,
    prediction,
    start,
    view_of,
)


async def test_settled_run_is_found_by_its_fingerprint_only(store: Store) -> None:
    """The first create's response named the model: from now on its schema decides what is equal."""
    await go(store, "1", provisional="P")
    assert await store.settle_identity("run1", "F", None) is True
    run = await store.run("run1")
    assert run == live(fingerprint="F", leader_id="up1")
    assert (await join(store, "2")).view.run == run
    assert isinstance(await start(store, "3", provisional="P"), Started)


async def test_nondeterministic_run_is_not_joined_after_settling(store: Store) -> None:
    await go(store, "1", provisional="P")
    assert await store.settle_identity("run1", None, None) is True
    run = await store.run("run1")
    assert run is not None
    assert (run.fingerprint, run.provisional) == (None, None)
    assert isinstance(await start(store, "2", provisional="P"), Started)


async def test_fingerprint_of_another_open_run_is_not_taken(store: Store) -> None:
    """Another process knew the model and was faster: a fingerprint has one open run, and keeps it."""
    await go(store, "1", provisional="P")
    await go(store, "2", fingerprint="F")
    assert await store.settle_identity("run1", "F", NOW + 1000) is False
    run = await store.run("run1")
    assert run is not None
    assert (run.fingerprint, run.provisional, run.cache_until) == (None, None, None)
    assert (await finish(store, "1")).cache_until is None
    joined = await join(store, "3")
    assert joined.view.run.id == "run2"


async def test_finished_run_takes_no_fingerprint_from_an_open_one(store: Store) -> None:
    await go(store, "1", provisional="P")
    await finish(store, "1")
    await go(store, "2", fingerprint="F")
    assert await store.settle_identity("run1", "F", NOW + 1000) is False
    assert (await store.cache_stats(NOW)).entries == 0


async def test_run_that_ended_before_settling_can_be_hit_afterwards(store: Store) -> None:
    await go(store, "1", provisional="P")
    assert (await finish(store, "1")).cache_until is None
    assert await store.settle_identity("run1", "F", NOW + 500) is True
    run = await store.run("run1")
    assert run is not None
    assert (run.fingerprint, run.cache_until) == ("F", NOW + 500)
    assert isinstance(await start(store, "2", fingerprint="F"), Hit)


@pytest.mark.parametrize("status", [Status.FAILED, Status.PROCESSING])
async def test_settling_caches_only_success(store: Store, status: Status) -> None:
    await go(store, "1", provisional="P")
    await store.advance("run1", status=status, document=b"x", stream_url=None, at=NOW + 1)
    assert await store.settle_identity("run1", "F", NOW + 500) is True
    run = await store.run("run1")
    assert run is not None
    assert run.cache_until is None
    assert (await store.cache_stats(NOW)).entries == 0


async def test_settling_again_can_add_the_expiry(store: Store) -> None:
    """The run ended between reading and settling it: the second call says how long it can be hit."""
    await go(store, "1", provisional="P")
    assert await store.settle_identity("run1", "F", None)
    await finish(store, "1", cache_until=None)
    assert await store.settle_identity("run1", "F", NOW + 500)
    assert isinstance(await start(store, "2", fingerprint="F"), Hit)


async def test_identity_is_settled_once(store: Store) -> None:
    await go(store, "1", provisional="P")
    assert await store.settle_identity("run1", "F", None)
    assert not await store.settle_identity("run1", "G", None)
    assert not await store.settle_identity("run1", None, None)
    await go(store, "2", fingerprint="H", provisional="Q")
    assert not await store.settle_identity("run2", "G", None)
    assert await store.settle_identity("run2", "H", None)
    runs = [await store.run("run1"), await store.run("run2")]
    assert [run and run.fingerprint for run in runs] == ["F", "H"]


async def test_bypassed_run_cannot_get_an_identity(store: Store) -> None:
    """It is never shared with another caller."""
    await go(store, "1")
    assert not await store.settle_identity("run1", "F", NOW + 500)
    assert await store.settle_identity("run1", None, None)
    assert not await store.settle_identity("unknown", "F", None)
    assert not await store.settle_identity("unknown", None, None)


async def test_settling_does_not_restore_cleared_data(store: Store) -> None:
    await go(store, "1", provisional="P")
    await finish(store, "1")
    await store.clear_data("run1", b"removed")
    await store.settle_identity("run1", "F", NOW + 500)
    assert isinstance(await start(store, "2", fingerprint="F"), Started)


async def test_detached_prediction_leaves_no_trace(store: Store) -> None:
    """The model turned out not to be shared: the caller gets its own run under the same id."""
    await go(store, "1", provisional="P")
    await start(store, "2", provisional="P", idempotency=idempotency())
    await store.detach("p2")
    assert await store.prediction("p2") is None
    assert [each.id for each in await store.predictions_of("run1")] == ["up1"]
    outcome = await start(store, "2", idempotency=idempotency())
    assert isinstance(outcome, Started)
    cancellation = await store.cancel("up1", NOW)
    assert cancellation is not None
    assert cancellation.is_last


async def test_only_joined_predictions_can_be_detached(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await finish(store, "1")
    await start(store, "2", fingerprint="F")
    for each in ("up1", "p2", "unknown"):
        await store.detach(each)
    assert len(await store.predictions_of("run1")) == 2


async def test_detaching_cancels_nothing(store: Store) -> None:
    """All others have cancelled and the last one detaches: the run goes on and its result is cached."""
    await go(store, "1", fingerprint="F")
    await join(store, "2")
    await store.cancel("up1", NOW)
    await store.detach("p2")
    run = await store.run("run1")
    assert run is not None
    assert run.cancel_asked_at is None
    assert isinstance(await start(store, "3", fingerprint="F"), Joined)


async def test_run_is_found_in_every_state(store: Store) -> None:
    await lead(store, "1", run={"request": b"x" * 5000})
    assert await store.run("run1") == intent(request=b"x" * 5000, leader_id="p1")
    await store.record_created(live(), prediction())
    assert await store.run("run1") == live()
    await store.record_created(ended("run2"), prediction("p2", "run2"))
    assert await store.run("run2") == ended("run2")
    for unknown in ("", "p1", "RUN1", "run3"):
        assert await store.run(unknown) is None


async def test_predictions_of_a_run_are_ordered_by_creation(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    for name, at in (("2", 3.0), ("3", 1.0), ("4", 1.0), ("5", -1.0)):
        await join(store, name, prediction_={"created_at": NOW + at})
    await go(store, "6")
    assert [each.id for each in await store.predictions_of("run1")] == ["p5", "up1", "p3", "p4", "p2"]
    assert [each.id for each in await store.predictions_of("run1", limit=2)] == ["p5", "up1"]
    assert await store.predictions_of("unknown") == []


async def test_deadlines_of_open_predictions_are_listed(store: Store) -> None:
    """A restart resumes the deadlines of callers who still wait."""
    due = {"prediction_": {"deadline_at": NOW + 60}}
    await go(store, "1", fingerprint="F")
    for n in (2, 3, 5, 6):
        await join(store, str(n), **due)
    await join(store, "4")
    await store.cancel("p3", NOW)
    await lead(store, "7", **due)
    await go(store, "8", fingerprint="G")
    await join(store, "9", fingerprint="G", **due)
    await finish(store, "8")
    outcome = await start(store, "0", fingerprint="G", **due)
    assert isinstance(outcome, Hit)
    seen, after = [], ""
    while page := await store.deadlines(after=after, limit=2):
        assert len(page) <= 2
        seen += page
        after = page[-1].id
    assert [each.id for each in seen] == ["p2", "p5", "p6"]
    assert all(each.deadline_at == NOW + 60 for each in seen)


async def test_leaders_deadline_counts_from_its_creation_upstream(store: Store) -> None:
    await lead(store, "1", prediction_={"deadline_at": NOW + 60})
    assert await store.deadlines() == []
    starter = prediction("up1", "run1", deadline_at=NOW + 63)
    await store.record_created(live(), starter)
    assert await store.deadlines() == [starter]


async def test_cancelled_run_has_no_deadlines(store: Store) -> None:
    await lead(store, "1", prediction_={"deadline_at": NOW + 60})
    await store.record_created(live(), prediction("up1", "run1", deadline_at=NOW + 63))
    await store.cancel("up1", NOW)
    assert await store.deadlines() == []


async def test_runs_that_can_be_hit_keep_their_data(store: Store) -> None:
    """An hour after the end data is deleted, but not that of a cache entry before it expires."""
    for n, cache_until in enumerate((None, NOW + 5000, NOW + 8000)):
        await go(store, str(n), fingerprint=f"F{n}")
        await finish(store, str(n), at=NOW + n, cache_until=cache_until)

    async def due(now: float) -> list[str]:
        return [run.id for run in await store.runs_to_clear(NOW + 3600, now, 10)]

    assert await due(NOW + 4999) == ["run0"]
    assert await due(NOW + 5000) == ["run0", "run1"]
    assert await due(NOW + 9000) == ["run0", "run1", "run2"]
    assert await store.purge_cache(PURGE) == 3 - 1
    assert await due(NOW) == ["run0", "run1", "run2"]


async def test_cache_entry_is_deleted_with_its_last_prediction(store: Store) -> None:
    """`retain_days` is a promise about records: it takes precedence over the cache."""
    await go(store, "1", fingerprint="F")
    await finish(store, "1", cache_until=NOW + 1e9)
    await start(store, "2", fingerprint="F", prediction_={"created_at": NOW + 50}, idempotency=idempotency())
    assert await store.delete_records(NOW + 10, 10) == 1
    assert isinstance(await start(store, "3", fingerprint="F", prediction_={"created_at": NOW + 50}), Hit)
    assert await store.delete_records(NOW + 100, 10) == 2
    assert await store.run("run1") is None
    assert (await store.cache_stats(NOW)).entries == 0
    outcome = await start(store, "4", fingerprint="F", idempotency=idempotency())
    assert isinstance(outcome, Started)


async def test_open_runs_keep_their_predictions_at_any_age(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await join(store, "2")
    await lead(store, "3")
    assert await store.delete_records(NOW + 1e9, 10) == 0
    assert len(await store.predictions_of("run1")) == 2
    assert len(await store.predictions_of("run3")) == 1


async def test_team_sees_its_own_predictions_on_another_teams_run(store: Store) -> None:
    """With `share = "all"` a team hits another's run: its list shows its own prediction, not the other's."""
    await go(store, "1", fingerprint="F")
    await finish(store, "1")
    await start(store, "2", fingerprint="F", run={"team": "blue"}, prediction_={"team": "blue"})
    page = await store.predictions(team="blue", kind=Kind.PREDICTION, limit=10)
    (item,) = page.items
    assert isinstance(item, PredictionView)
    assert (item.prediction.id, item.prediction.team, item.run.team) == ("p2", "blue", "red")


async def test_reason_is_stored_per_prediction_and_admission_for_the_leader(store: Store) -> None:
    """`explain` shows what was decided then. How a run was admitted is stored for its starter only."""
    let_in = Admitted(5, 7, (Limit("budget_usd_per_day", SubjectKind.TEAM, LimitKind.DOLLARS, 9.0),), 1.25, None)
    reasoned = {"reason": "seed"}
    outcome = await start(store, "1", fingerprint="F", admitted=let_in, prediction_=reasoned)
    assert (view_of(outcome).prediction.reason, view_of(outcome).prediction.admitted) == ("seed", let_in)
    await store.record_created(live("run1", fingerprint="F"), replace(view_of(outcome).prediction, id="up1"), None)
    starter = await store.prediction("up1")
    assert starter is not None
    assert starter.prediction.admitted == let_in
    joined = await start(store, "2", fingerprint="F", admitted=let_in, prediction_=reasoned)
    assert isinstance(joined, Joined)
    assert (joined.view.prediction.reason, joined.view.prediction.admitted) == ("seed", None)


async def test_unknown_reason_is_replaced_when_the_identity_is_settled(store: Store) -> None:
    """A bare version: the schema's verdict replaces `model-unknown`."""
    await lead(store, "1", provisional="P", prediction_={"reason": "model-unknown"})
    await store.record_created(live(), prediction("up1", reason="model-unknown"))
    assert await store.settle_identity("run1", "F", None, reason="seed") is True
    view = await store.prediction("up1")
    assert view is not None
    assert view.prediction.reason == "seed"
    assert await store.settle_identity("run1", "F", None, reason="temperature-zero") is True
    assert (await store.prediction("up1")) == view
