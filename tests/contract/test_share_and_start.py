"""How a prediction is created: as a hit, by joining a run, on its own run, or not at all."""

import itertools

import pytest
from msgspec.structs import replace

from gateway.domain.records import PredictionView, RunState, Source, Status
from gateway.predictions.ports.sharing import Hit, Joined, Nothing, Started
from gateway.store.interface import Store
from tests.support.records import (
    NOW,
    ended,
    finish,
    go,
    join,
    lead,
    live,
    prediction,
    share,
    start,
    view_of,
    wish,
)


async def test_first_request_starts_a_run(store: Store) -> None:
    """The intent is recorded with its prediction as the starter and its source unchanged."""
    wished = wish("1", fingerprint="F", provisional="P", prediction_={"source": Source.BYPASS, "user": "ann"})
    recorded, starter = replace(wished.run, leader_id="p1"), wished.request.prediction
    assert await wished.start(store) == Started(PredictionView(starter, recorded))
    assert await store.run("run1") == recorded
    assert await store.open_runs() == [recorded]
    assert await store.predictions_of("run1") == [starter]


async def test_prediction_belongs_to_the_run_it_started(store: Store) -> None:
    outcome = await start(store, "1", prediction_={"run_id": "to be said"})
    assert view_of(outcome).prediction == prediction("p1", "run1")


async def test_equal_request_joins_an_intent(store: Store) -> None:
    """The second caller is counted before the first one's create has been answered."""
    led = await lead(store, "1", fingerprint="F")
    outcome = await start(store, "2", fingerprint="F", prediction_={"webhook": "https://x.example/"})
    joined = prediction("p2", "run1", source=Source.JOINED, webhook="https://x.example/")
    assert outcome == Joined(PredictionView(joined, led))
    assert await store.predictions_of("run1") == [prediction(), joined]
    assert await store.run("run2") is None


async def test_equal_request_joins_a_live_run(store: Store) -> None:
    run = await go(store, "1", fingerprint="F")
    assert run == live(fingerprint="F", leader_id="up1")
    outcome = await start(store, "2", fingerprint="F")
    assert outcome == Joined(PredictionView(prediction("p2", "run1", source=Source.JOINED), run))
    assert await store.prediction("p2") == PredictionView(prediction("p2", "run1", source=Source.JOINED), run)


async def test_equal_request_hits_a_finished_run(store: Store) -> None:
    """The result is there at once, under an id of its own."""
    await go(store, "1", fingerprint="F")
    run = await finish(store, "1")
    assert run.cache_until == NOW + 1000
    outcome = await start(store, "2", fingerprint="F", now=NOW + 20)
    assert outcome == Hit(PredictionView(prediction("p2", "run1", source=Source.HIT), run), 0)
    assert await store.prediction("p2") == PredictionView(prediction("p2", "run1", source=Source.HIT), run)
    assert await store.run("run2") is None


@pytest.mark.parametrize("may_start", [True, False])
@pytest.mark.parametrize("may_join", [True, False])
@pytest.mark.parametrize("may_hit", [True, False])
@pytest.mark.parametrize("there", ["nothing", "open", "finished", "both"])
async def test_request_takes_the_first_way_it_allows(
    store: Store, there: str, *, may_hit: bool, may_join: bool, may_start: bool
) -> None:
    """In the order hit, join, start. `no-cache` excludes the hit, `only-if-cached` the start."""
    if there in ("finished", "both"):
        await go(store, "1", fingerprint="F")
        await finish(store, "1")
    if there in ("open", "both"):
        await go(store, "2", fingerprint="F", may_hit=False)
    ask = start if may_start else share
    outcome = await ask(store, "3", fingerprint="F", may_hit=may_hit, may_join=may_join)
    expected: type[Hit | Joined | Started]
    if may_hit and there in ("finished", "both"):
        expected, run_id = Hit, "run1"
    elif may_join and there in ("open", "both"):
        expected, run_id = Joined, "run2"
    elif may_start:
        expected, run_id = Started, "run3"
    else:
        assert outcome == Nothing()
        assert await store.run("run3") is None
        for each in ("run1", "run2"):
            assert "p3" not in [known.id for known in await store.predictions_of(each)]
        return
    assert isinstance(outcome, expected)
    assert view_of(outcome).run.id == run_id
    assert view_of(outcome).run == await store.run(run_id)
    assert view_of(outcome).prediction in await store.predictions_of(run_id)


async def test_unshared_run_does_not_replace_the_one_to_join(store: Store) -> None:
    """A caller who demands an own run gets one without an identity; later callers still join the first."""
    await go(store, "1", fingerprint="F", provisional="P")
    for name, fingerprint in (("2", "F"), ("3", None)):
        outcome = await start(store, name, fingerprint=fingerprint, provisional="P", may_hit=False, may_join=False)
        assert isinstance(outcome, Started)
        assert (view_of(outcome).run.fingerprint, view_of(outcome).run.provisional) == (None, None)
        assert await store.run(f"run{name}") == view_of(outcome).run
    await store.record_created(live("run2", fingerprint="F", provisional="P"), prediction("up2", "run2"))
    recorded = await store.run("run2")
    assert recorded is not None
    assert recorded.fingerprint is None
    joined = await join(store, "4")
    assert joined.view.run.id == "run1"


async def test_different_identities_do_not_share(store: Store) -> None:
    """Other input, other scope, no identity at all: each has a run of its own."""
    for name, fingerprint in (("1", "F"), ("2", "f"), ("3", "F "), ("4", None), ("5", None), ("6", "")):
        await lead(store, name, fingerprint=fingerprint, may_hit=True, may_join=True)
    assert len(await store.open_runs()) == 6


async def test_run_with_a_requested_cancel_is_not_joined(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await store.cancel("up1", NOW + 1)
    assert isinstance(await start(store, "2", fingerprint="F"), Started)


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELED, Status.ABORTED])
async def test_failed_run_is_not_hit(store: Store, status: Status) -> None:
    """Negative results are not cached: the next caller starts a new run."""
    await go(store, "1", fingerprint="F")
    run = await finish(store, "1", status=status)
    assert run.cache_until is None
    assert isinstance(await start(store, "2", fingerprint="F"), Started)


async def test_run_that_succeeds_after_a_cancel_can_be_hit(store: Store) -> None:
    """Upstream finished all the same and charges for it, so the result is used (docs/architecture.md, Create)."""
    await go(store, "1", fingerprint="F")
    await store.cancel("up1", NOW + 1)
    run = await finish(store, "1")
    assert (run.cache_until, run.cancel_asked_at) == (NOW + 1000, NOW + 1)
    assert isinstance(await start(store, "2", fingerprint="F"), Hit)


async def test_run_can_be_hit_until_it_expires(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await finish(store, "1", cache_until=NOW + 100)
    assert isinstance(await share(store, "2", now=NOW + 99.9, fingerprint="F"), Hit)
    assert isinstance(await share(store, "3", now=NOW + 100, fingerprint="F"), Nothing)


async def test_run_without_an_expiry_cannot_be_hit(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await finish(store, "1", cache_until=None)
    assert isinstance(await start(store, "2", fingerprint="F"), Started)


async def test_max_age_excludes_older_results(store: Store) -> None:
    """A result of exactly that age can still be hit."""
    await go(store, "1", fingerprint="F")
    await finish(store, "1", at=NOW + 9)
    assert isinstance(await share(store, "2", ended_since=NOW + 9.1, fingerprint="F"), Nothing)
    assert isinstance(await share(store, "3", ended_since=NOW + 9, fingerprint="F"), Hit)


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3])))
async def test_newest_result_is_hit(store: Store, order: tuple[int, ...]) -> None:
    """`no-cache` made a new result: it replaces the old one, in whatever order they were recorded."""
    for n in order:
        await store.record_created(
            ended(f"run{n}", NOW + n, fingerprint="F", cache_until=NOW + 50 if n == 3 else NOW + 100),
            prediction(f"up{n}", f"run{n}"),
        )
    outcome = await start(store, "8", fingerprint="F")
    assert view_of(outcome).run.id == "run3"
    outcome = await start(store, "9", fingerprint="F", now=NOW + 60)
    assert view_of(outcome).run.id == "run2"


async def test_run_with_cleared_data_cannot_be_hit(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await finish(store, "1")
    await store.clear_data("run1", b"removed")
    assert isinstance(await start(store, "2", fingerprint="F"), Started)


async def test_run_that_ended_in_the_create_can_be_hit(store: Store) -> None:
    """Upstream's response to the create was terminal already."""
    await lead(store, "1", fingerprint="F")
    await store.record_created(ended(cache_until=NOW + 100), prediction("up1", "run1"))
    assert isinstance(await start(store, "2", fingerprint="F"), Hit)


async def test_run_without_an_identity_is_not_cached(store: Store) -> None:
    """A bypassed request leaves nothing to hit, whatever expiry its tracker sets."""
    await lead(store, "1")
    await store.record_created(ended("run1", cache_until=NOW + 100), prediction("up1", "run1"))
    await go(store, "2")
    assert (await finish(store, "2")).cache_until is None
    run = await store.run("run1")
    assert run is not None
    assert run.cache_until is None
    assert (await store.cache_stats(NOW)).entries == 0


async def test_end_before_the_create_response_can_be_hit(store: Store) -> None:
    """Upstream's webhook came first: the hit's id is found at once, the starter's when it has one."""
    await lead(store, "1", fingerprint="F")
    await finish(store, "1")
    assert isinstance(await start(store, "2", fingerprint="F"), Hit)
    assert await store.prediction("p2") is not None
    assert await store.prediction("p1") is None
    await store.record_created(live(), prediction("up1", "run1"))
    run = await store.run("run1")
    assert run is not None
    assert (run.state, run.leader_id, run.cache_until) == (RunState.ENDED, "up1", NOW + 1000)
    assert await store.prediction("up1") == PredictionView(prediction("up1", "run1"), run)


async def test_provisional_identity_joins_while_the_model_is_unknown(store: Store) -> None:
    """A burst of `run("owner/name:version")` on an empty version map: all join the first run."""
    led = await lead(store, "1", provisional="P")
    outcome = await start(store, "2", provisional="P")
    assert isinstance(outcome, Joined)
    assert outcome.view.run == led
    # Another process knows the model already.
    outcome = await start(store, "3", fingerprint="F", provisional="P")
    assert isinstance(outcome, Joined)
    assert outcome.view.run == led
    await lead(store, "4", provisional="p")


async def test_request_of_unknown_model_joins_a_run_of_known_model(store: Store) -> None:
    await lead(store, "1", fingerprint="F", provisional="P")
    assert isinstance(await start(store, "2", provisional="P"), Joined)


async def test_final_identity_takes_precedence_over_the_provisional(store: Store) -> None:
    """The version's schema changed in between: the two requests are not equal."""
    await lead(store, "1", fingerprint="F", provisional="P")
    await lead(store, "2", fingerprint="G", provisional="P")
    outcome = await start(store, "3", provisional="P", run={"intended_at": NOW + 1})
    assert view_of(outcome).run.id == "run1"


async def test_fingerprint_is_matched_before_the_provisional_identity(store: Store) -> None:
    await lead(store, "1", provisional="P")
    await lead(store, "2", fingerprint="F")
    outcome = await start(store, "3", fingerprint="F", provisional="P")
    assert view_of(outcome).run.id == "run2"
