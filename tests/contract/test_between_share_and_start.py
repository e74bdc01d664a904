"""`start` repeats the checks of `share` in its own transaction, since another request may come between the two."""

import asyncio
from collections import Counter

import pytest

from gateway.domain.limits import SubjectKind
from gateway.domain.quota import Counters, ReservationRequest, RunLimits
from gateway.domain.records import PredictionView, Source, Status
from gateway.predictions.ports.sharing import (
    Hit,
    Joined,
    Mismatched,
    ModelNamed,
    Nothing,
    Pending,
    Refused,
    Replayed,
    Started,
    Unidentified,
)
from gateway.store.interface import Store
from tests.support.records import NOW, Wish, finish, go, idempotency, lead, live, prediction, start, wish

TEAM = "team/red"
MONEY = ReservationRequest(100, 10, (RunLimits(of=SubjectKind.TEAM, scope=TEAM, concurrent=1, microusd_per_day=100),))


async def found_nothing(store: Store, name: str, **fields: object) -> Wish:
    """Ask to share, without a result; return the request, which can then start."""
    wished = wish(name, reservation=MONEY, now=NOW + 20, **fields)  # type: ignore[arg-type]
    assert await wished.share(store) == Nothing()
    return wished


async def nothing_left(store: Store, run_id: str) -> None:
    """Check that nothing of an intent was recorded: no run, no money."""
    assert await store.run(run_id) is None
    assert await store.stuck_reservations(10) == []


async def test_start_hits_a_run_that_finished_after_share(store: Store) -> None:
    wished = await found_nothing(store, "2", fingerprint="F")
    await go(store, "1", fingerprint="F")
    run = await finish(store, "1")
    outcome = await wished.start(store)
    hit = prediction("p2", "run1", source=Source.HIT)
    assert outcome == Hit(PredictionView(hit, run), 0)
    await nothing_left(store, "run2")
    assert await store.meters([TEAM], NOW) == {TEAM: Counters()}
    assert await store.predictions_of("run1") == [hit, prediction("up1")]


@pytest.mark.parametrize("state", ["intended", "live"])
async def test_start_joins_a_run_that_opened_after_share(store: Store, state: str) -> None:
    wished = await found_nothing(store, "2", fingerprint="F")
    run = await (lead if state == "intended" else go)(store, "1", fingerprint="F", reservation=MONEY)
    held = await store.meters([TEAM], NOW)
    # The only slot and the whole budget are in use; a join needs neither.
    outcome = await wished.start(store)
    assert outcome == Joined(PredictionView(prediction("p2", "run1", source=Source.JOINED), run))
    await nothing_left(store, "run2")
    assert await store.meters([TEAM], NOW) == held


async def test_start_joins_a_run_with_the_same_provisional_identity(store: Store) -> None:
    wished = await found_nothing(store, "2", provisional="P")
    await lead(store, "1", provisional="P")
    assert isinstance(await wished.start(store), Joined)
    await nothing_left(store, "run2")


async def test_request_that_was_identified_before_its_model_was_known_starts_no_run(store: Store) -> None:
    """An equal run has its final identity since, which the request does not have: it has to be identified again."""
    wished = await found_nothing(store, "2", provisional="P", unnamed_version="a" * 64)
    await go(store, "1", provisional="P")
    await store.learn_version("a" * 64, "acme/toy")
    assert isinstance(await wished.start(store), Joined)
    wished = wish("3", provisional="P", unnamed_version="a" * 64, reservation=MONEY)
    assert await store.settle_identity("run1", "F", None)
    assert await wished.share(store) == ModelNamed()
    assert await wished.start(store) == ModelNamed()
    await nothing_left(store, "run3")
    assert len(await store.predictions_of("run1")) == 2


async def test_run_that_has_ended_without_its_final_identity_gets_it_first(store: Store) -> None:
    """It may be a hit then, so no other run is started, whether or not the request's model is known."""
    named = await found_nothing(store, "2", fingerprint="F", provisional="P")
    unnamed = await found_nothing(store, "3", provisional="P", unnamed_version="a" * 64)
    await go(store, "1", provisional="P")
    run = await finish(store, "1")
    for wished in (named, unnamed):
        assert await wished.share(store) == Unidentified(run)
        assert await wished.start(store) == Unidentified(run)
    assert await store.settle_identity("run1", "F", NOW + 1000)
    assert isinstance(await named.start(store), Hit)
    for name in ("run2", "run3"):
        await nothing_left(store, name)


@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELED])
async def test_run_that_has_failed_without_its_final_identity_is_not_waited_for(store: Store, status: Status) -> None:
    await go(store, "1", provisional="P")
    await finish(store, "1", status=status)
    assert isinstance(await start(store, "2", fingerprint="F", provisional="P"), Started)


async def test_run_without_its_final_identity_whose_data_was_removed_is_no_hit(store: Store) -> None:
    await go(store, "1", provisional="P")
    await finish(store, "1")
    await store.clear_data("run1", b"removed")
    assert isinstance(await start(store, "2", fingerprint="F", provisional="P"), Started)


async def test_start_prefers_a_finished_run_to_an_open_one(store: Store) -> None:
    wished = await found_nothing(store, "3", fingerprint="F")
    await go(store, "1", fingerprint="F")
    await finish(store, "1")
    await go(store, "2", fingerprint="F", may_hit=False)
    outcome = await wished.start(store)
    assert isinstance(outcome, Hit)
    assert outcome.view.run.id == "run1"


async def test_key_used_by_an_equal_request_is_pending_then_replayed(store: Store) -> None:
    """Two copies of one request cause neither a second run nor a second reservation."""
    second = await found_nothing(store, "2", idempotency=idempotency())
    third = await found_nothing(store, "3", idempotency=idempotency())
    await lead(store, "1", idempotency=idempotency(), reservation=MONEY)
    held = await store.meters([TEAM], NOW)
    assert await second.start(store) == Pending()
    view = (await store.record_created(live(), prediction("up1"))).view
    assert await third.start(store) == Replayed(view)
    assert await store.meters([TEAM], NOW) == held
    for run_id in ("run2", "run3"):
        await nothing_left(store, run_id)
    assert await store.predictions_of("run1") == [prediction("up1")]


async def test_key_used_by_another_request_is_refused(store: Store) -> None:
    wished = await found_nothing(store, "2", idempotency=idempotency(body="other"))
    await lead(store, "1", idempotency=idempotency())
    assert await wished.start(store) == Mismatched()
    await nothing_left(store, "run2")


async def test_used_key_takes_precedence_over_a_run_to_share(store: Store) -> None:
    wished = await found_nothing(store, "3", fingerprint="F", idempotency=idempotency(body="other"))
    await go(store, "1", fingerprint="F")
    await finish(store, "1")
    await lead(store, "2", idempotency=idempotency())
    assert await wished.start(store) == Mismatched()


async def test_unshared_request_starts_beside_an_equal_run(store: Store) -> None:
    """The second intent has no identity, so one run remains to join."""
    wished = await found_nothing(store, "2", fingerprint="F", may_hit=False, may_join=False)
    await go(store, "1", fingerprint="F")
    outcome = await wished.start(store)
    assert isinstance(outcome, Started)
    assert outcome.view.run.fingerprint is None
    assert isinstance(await wish("3", fingerprint="F").start(store), Joined)


async def test_limit_reached_after_share_refuses_start(store: Store) -> None:
    wished = await found_nothing(store, "2", fingerprint="F", idempotency=idempotency())
    await lead(store, "1", reservation=MONEY)
    outcome = await wished.start(store)
    assert isinstance(outcome, Refused)
    await nothing_left(store, "run2")
    # Its key is unused, and it starts once the limit allows it.
    await store.discard_intent("run1")
    assert isinstance(await wished.start(store), Started)


async def test_run_that_ended_without_success_is_not_shared(store: Store) -> None:
    wished = await found_nothing(store, "2", fingerprint="F")
    await go(store, "1", fingerprint="F")
    await finish(store, "1", status=Status.FAILED)
    assert isinstance(await wished.start(store), Started)


async def test_concurrent_starts_create_one_run(store: Store) -> None:
    """All call `share` first and `start` then: one run, one reservation, and every caller is on it."""
    crowd = [await found_nothing(store, str(n), fingerprint="F") for n in range(50)]
    outcomes = await asyncio.gather(*(wished.start(store) for wished in crowd))
    assert Counter(type(outcome) for outcome in outcomes) == {Started: 1, Joined: 49}
    (run,) = await store.open_runs()
    assert len(await store.predictions_of(run.id)) == 50
    assert (await store.meters([TEAM], NOW + 20))[TEAM].held_microusd == 100


async def test_returned_view_equals_the_stored_record(store: Store) -> None:
    """Also for a plain create, a repeated record, and progress that arrived before the create's response."""
    await lead(store, "1", fingerprint="F")
    view = (await store.record_created(live(fingerprint="other", cache_until=NOW + 9), prediction("up1"))).view
    assert view == await store.prediction("up1")
    assert (view.run.fingerprint, view.run.cache_until, view.run.leader_id) == ("F", None, "up1")
    await store.advance("run1", status=Status.PROCESSING, document=b"newer", stream_url=None, at=NOW + 2)
    again = (await store.record_created(live(), prediction("up1"))).view
    assert again == await store.prediction("up1")
    assert again.run.document == b"newer"
    await lead(store, "2")
    await finish(store, "2")
    late = (await store.record_created(live("run2"), prediction("up2", "run2"))).view
    assert late == await store.prediction("up2")
    assert late.run.status is Status.SUCCEEDED
    await lead(store, "3")
    await store.discard_intent("run3")
    orphan = (await store.record_created(live("run3"), prediction("up3", "run3"))).view
    assert orphan == await store.prediction("up3")
