"""The event of a run's end: what the step that records it returns, and what can be read afterwards."""

import asyncio

from gateway.domain.ledger import Settlement
from gateway.domain.records import Source, Status
from gateway.domain.run_end import MAX_LISTED, RunEnded, SharedBy
from gateway.predictions.ports.sharing import Hit
from gateway.store.interface import Store
from tests.support.records import NOW, ended, go, join, lead, live, prediction, share

HOOK = {"webhook": "https://a.example/hook"}
COST = Settlement(at=NOW + 9, microusd=70, milliseconds=900, target="acme/toy", reason="succeeded")


async def end(store: Store, run_id: str = "run1", settlement: Settlement | None = COST) -> RunEnded:
    """End a live run."""
    outcome = await store.advance(
        run_id, status=Status.SUCCEEDED, document=b"done", stream_url=None, at=NOW + 9, cache_until=NOW + 99,
        settlement=settlement,
    )  # fmt: skip
    assert isinstance(outcome, RunEnded)
    return outcome


def shared_by(team: str, source: Source, predictions: int, waiting: int, webhooks: int = 0) -> SharedBy:
    return SharedBy(team=team, source=source, predictions=predictions, waiting=waiting, webhooks=webhooks)


async def test_end_contains_cost_and_sharers(store: Store) -> None:
    """Counted by team and source; cancelled predictions do not count as waiting, whatever webhook they have."""
    await go(store, "1", fingerprint="F")
    await join(store, "2", prediction_=HOOK)
    await join(store, "3", prediction_={"team": "blue"})
    await join(store, "4", prediction_={"team": "blue"} | HOOK)
    await store.cancel("p4", NOW + 5)
    outcome = await end(store)
    assert outcome.run == await store.run("run1")
    assert outcome.settlement == COST
    assert set(outcome.shared_by) == {
        shared_by("red", Source.MISS, 1, 1),
        shared_by("red", Source.JOINED, 1, 1, 1),
        shared_by("blue", Source.JOINED, 2, 1),
    }
    assert sorted(outcome.prediction_ids) == ["p2", "p3", "p4", "up1"]
    assert outcome.has_webhooks


async def test_end_can_be_read_again(store: Store) -> None:
    """For a step whose result was lost. Hits since then are not part of the end."""
    await go(store, "1", fingerprint="F")
    await join(store, "2", prediction_=HOOK)
    assert await store.ended_run("run1") is None
    outcome = await end(store)
    assert isinstance(await share(store, "3", fingerprint="F"), Hit)
    assert await store.ended_run("run1") == outcome


async def test_end_without_a_settlement_has_no_cost(store: Store) -> None:
    await go(store)
    outcome = await end(store, settlement=None)
    assert outcome.settlement == Settlement(at=NOW + 9)
    assert outcome.shared_by == (shared_by("red", Source.MISS, 1, 1),)
    assert not outcome.has_webhooks


async def test_end_in_the_create_response_can_be_read(store: Store) -> None:
    """Upstream answered the create with the result; another caller had joined meanwhile."""
    await lead(store, "1", fingerprint="F")
    await join(store, "2")
    recorded = await store.record_created(ended(fingerprint="F"), prediction("up1", "run1"), COST)
    outcome = await store.ended_run("run1")
    assert outcome is not None
    assert recorded.ended == outcome
    assert (await store.record_created(ended(fingerprint="F"), prediction("up1", "run1"), COST)).ended is None
    assert (outcome.run.status, outcome.settlement) == (Status.SUCCEEDED, COST)
    assert set(outcome.shared_by) == {shared_by("red", Source.MISS, 1, 1), shared_by("red", Source.JOINED, 1, 1)}


async def test_end_before_the_create_response_keeps_its_settlement(store: Store) -> None:
    await lead(store, "1")
    await end(store)
    recorded = await store.record_created(live(), prediction("up1", "run1"), Settlement(at=NOW, microusd=99_999))
    assert recorded.ended is None
    outcome = await store.ended_run("run1")
    assert outcome is not None
    assert outcome.settlement == COST
    assert outcome.prediction_ids == ("up1",)


async def test_end_of_many_predictions_has_exact_counts_and_a_partial_list(store: Store) -> None:
    """Thousands may share one run: the list is bounded, the counts are not."""
    await go(store, "1", fingerprint="F")
    crowd = range(2, MAX_LISTED + 5)
    for first in range(0, len(crowd), 1000):
        joins = (join(store, str(n), prediction_={"created_at": NOW + n}) for n in crowd[first : first + 1000])
        await asyncio.gather(*joins)
    outcome = await end(store)
    assert outcome.prediction_ids == ("up1", *(f"p{n}" for n in crowd[: MAX_LISTED - 1]))
    assert sum(each.predictions for each in outcome.shared_by) == MAX_LISTED + 4
    assert [each.waiting for each in outcome.joined] == [MAX_LISTED + 3]
