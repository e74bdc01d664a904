"""The end of a run as one value: what the step that records it returns, and what can be read afterwards."""

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


async def test_the_step_that_ends_a_run_says_what_it_cost_and_who_shared_it(store: Store) -> None:
    """Counted by team and source; those who had cancelled are not waiting, whatever webhook they have."""
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


async def test_the_end_can_be_read_again_as_it_was_returned(store: Store) -> None:
    """For the caller of a step whose answer was lost. Hits that came since are not part of the end."""
    await go(store, "1", fingerprint="F")
    await join(store, "2", prediction_=HOOK)
    assert await store.ended_run("run1") is None
    outcome = await end(store)
    assert isinstance(await share(store, "3", fingerprint="F"), Hit)
    assert await store.ended_run("run1") == outcome


async def test_without_a_settlement_the_run_cost_nothing(store: Store) -> None:
    await go(store)
    outcome = await end(store, settlement=None)
    assert outcome.settlement == Settlement(at=NOW + 9)
    assert outcome.shared_by == (shared_by("red", Source.MISS, 1, 1),)
    assert not outcome.has_webhooks


async def test_the_end_of_a_run_that_was_created_ended_can_be_read(store: Store) -> None:
    """Upstream answered the create with the result; somebody had joined meanwhile."""
    await lead(store, "1", fingerprint="F")
    await join(store, "2")
    await store.record_created(ended(fingerprint="F"), prediction("up1", "run1"), COST)
    outcome = await store.ended_run("run1")
    assert outcome is not None
    assert (outcome.run.status, outcome.settlement) == (Status.SUCCEEDED, COST)
    assert set(outcome.shared_by) == {shared_by("red", Source.MISS, 1, 1), shared_by("red", Source.JOINED, 1, 1)}


async def test_an_end_before_the_answer_to_the_create_keeps_its_settlement(store: Store) -> None:
    await lead(store, "1")
    await end(store)
    await store.record_created(live(), prediction("up1", "run1"), Settlement(at=NOW, microusd=99_999))
    outcome = await store.ended_run("run1")
    assert outcome is not None
    assert outcome.settlement == COST
    assert outcome.prediction_ids == ("up1",)


async def test_a_crowd_is_counted_exactly_and_listed_in_part(store: Store) -> None:
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
