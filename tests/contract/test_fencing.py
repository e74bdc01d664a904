"""A node whose lease is lost writes nothing of the runs that it owned: each step of an owner, by another node.

docs/architecture.md, Nodes, has the list of steps and who may do them.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.domain.records import Copy, RunState, Status
from gateway.errors import RunTakenOver
from gateway.nodes.ports import LEADER
from gateway.predictions.ports.predictions import Predictions, Unchanged
from gateway.predictions.ports.sharing import Sharing
from gateway.store.postgres import PostgresStore
from gateway.streams.ports import EventLogs
from gateway.webhooks.ports import Busy, Deliveries
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind, DeliveryState
from tests.support.event_logs import append
from tests.support.polling import attempts
from tests.support.postgres import emptied_database
from tests.support.records import NOW, finish, go, join, lead, live, prediction

ARCHITECTURE = Path(__file__).parents[2] / "docs/architecture.md"
SECONDS = 10.0
ENDS: dict[str, Any] = {"status": Status.SUCCEEDED, "document": b"late", "stream_url": None}
NEWS: dict[str, Any] = ENDS | {"status": Status.PROCESSING}
TABLES = "runs", "predictions", "event_logs", "deliveries", "ledger", "reservations", "meters", "spent", "entries"
COPY = Copy(place=0, url="u", content_type="x/y", sha256="a" * 64, size=3, stored_at=NOW)


@pytest.fixture
def url() -> str:
    return emptied_database()


@pytest.fixture
async def nodes(url: str) -> AsyncIterator[tuple[PostgresStore, PostgresStore]]:
    """The node that loses its lease, and the one that takes over."""
    made = PostgresStore(url, decide=2, read=1), PostgresStore(url, decide=2, read=1)
    for store in made:
        await store.open()
        await store.nodes.join("host", SECONDS)
    await made[1].nodes.lead(LEADER, made[1].identity.number, SECONDS)
    yield made
    for store in made:
        await store.close()


async def take_over(old: PostgresStore, new: PostgresStore) -> None:
    await new.nodes.leave(old.identity.number)
    while await new.nodes.take_runs(new.identity.number, 10):
        pass


async def snapshot(store: PostgresStore) -> list[Any]:
    """Return all that a step of an owner can change."""

    def step(db: Any) -> list[Any]:
        return [sorted(db.connection.execute(f"SELECT t::text FROM {table} AS t").fetchall()) for table in TABLES]

    return list(await store._write(step))


async def refused(step: Awaitable[object]) -> None:
    with pytest.raises(RunTakenOver):
        await step


async def unchanged(step: Awaitable[object]) -> None:
    assert isinstance(await step, Unchanged)


async def nothing(step: Awaitable[object]) -> None:
    assert await step in (None, False)


Check = Callable[[Awaitable[object]], Awaitable[None]]
OF_AN_INTENT: dict[str, tuple[Callable[[PostgresStore], Awaitable[object]], Check]] = {
    "record_created": (lambda old: old.record_created(live("run1"), prediction("up1", "run1")), refused),
    "mark_uncertain": (lambda old: old.mark_uncertain("run1", NOW), nothing),
    "discard_intent": (lambda old: old.discard_intent("run1"), nothing),
}
OF_A_RUN: dict[str, tuple[Callable[[PostgresStore], Awaitable[object]], Check]] = {
    "advance": (lambda old: old.advance("run1", at=NOW + 9, **NEWS), unchanged),
    "advance to the end": (lambda old: old.advance("run1", at=NOW + 9, **ENDS), unchanged),
    "mark_unreadable": (lambda old: old.mark_unreadable("run1", NOW), nothing),
    "append_events": (lambda old: append(old, "run1", 0, b"late", kept_from=0), nothing),
    "settle_identity": (lambda old: old.settle_identity("run1", "F", NOW, reason="seed"), nothing),
}


@pytest.mark.parametrize("is_back", [False, True], ids=["unaware", "joined again"])
@pytest.mark.parametrize("name", OF_AN_INTENT)
async def test_intent_that_was_taken_over_stays_as_it_is(
    nodes: tuple[PostgresStore, PostgresStore], name: str, is_back: bool
) -> None:
    old, new = nodes
    await lead(old, "1", prediction_={"webhook": "https://hooks.example.com/x"})
    await take_over(old, new)
    if is_back:
        await old.nodes.join("host", SECONDS)
    before = await snapshot(new)
    step, check = OF_AN_INTENT[name]
    await check(step(old))
    assert await snapshot(new) == before


@pytest.mark.parametrize("is_back", [False, True], ids=["unaware", "joined again"])
@pytest.mark.parametrize("name", OF_A_RUN)
async def test_run_that_was_taken_over_stays_as_it_is(
    nodes: tuple[PostgresStore, PostgresStore], name: str, is_back: bool
) -> None:
    old, new = nodes
    await go(old, "1", provisional="P", prediction_={"reason": "model-unknown"})
    await append(old, "run1", 0, b"first", kept_from=0)
    await append(old, "run1", 5, b"second", kept_from=0)
    await take_over(old, new)
    if is_back and name != "settle_identity":
        await old.nodes.join("host", SECONDS)
    before = await snapshot(new)
    step, check = OF_A_RUN[name]
    await check(step(old))
    assert await snapshot(new) == before


async def test_node_that_is_alive_may_give_anothers_run_its_identity(
    nodes: tuple[PostgresStore, PostgresStore],
) -> None:
    """Whoever has an equal request knows the identity, and a prediction that joined must not wait forever."""
    old, new = nodes
    await go(old, "1", provisional="P")
    assert await new.settle_identity("run1", "F", None)


async def test_new_owner_goes_on_where_the_old_one_stopped(nodes: tuple[PostgresStore, PostgresStore]) -> None:
    old, new = nodes
    await go(old, "1")
    await append(old, "run1", 0, b"first", kept_from=0)
    await take_over(old, new)
    assert await append(new, "run1", 3, b"second", kept_from=0)
    assert await new.event_parts("run1") == [b"first", b"second"]
    assert (await finish(new, "1")).state is RunState.ENDED


async def test_create_that_is_answered_after_its_intent_was_discarded_is_not_recorded(
    nodes: tuple[PostgresStore, PostgresStore],
) -> None:
    """The new owner has searched for it, and its team's money is free again."""
    old, new = nodes
    run = await lead(old, "1")
    await take_over(old, new)
    await new.discard_intent("run1")
    answered = live("run1", owner=run.owner)
    await refused(old.record_created(answered, prediction("up1", "run1")))
    assert await new.run("run1") is None


async def test_create_that_is_answered_after_its_own_node_discarded_the_intent_is_recorded(
    nodes: tuple[PostgresStore, PostgresStore],
) -> None:
    old, _ = nodes
    run = await lead(old, "1")
    await old.discard_intent("run1")
    recorded = await old.record_created(live("run1", owner=run.owner), prediction("up1", "run1"))
    assert recorded.view.run.owner == run.owner


async def test_record_whose_answer_was_lost_is_found_after_the_takeover(
    nodes: tuple[PostgresStore, PostgresStore],
) -> None:
    old, new = nodes
    await go(old, "1")
    await take_over(old, new)
    repeated = await old.record_created(live("run1"), prediction("up1", "run1"))
    assert repeated.view.prediction.id == "up1"


async def test_intent_that_is_passed_on_goes_to_the_leader(nodes: tuple[PostgresStore, PostgresStore]) -> None:
    old, new = nodes
    await lead(old, "1")
    await old.mark_uncertain("run1", NOW, is_passed_on=True)
    (run,) = await new.nodes.take_runs(new.identity.number, 10)
    assert (run.id, run.uncertain_at) == ("run1", NOW)
    await refused(old.record_created(live("run1"), prediction("up1", "run1")))


async def test_what_a_node_resumes_is_its_own(nodes: tuple[PostgresStore, PostgresStore]) -> None:
    old, new = nodes
    hook = {"webhook": "https://hooks.example.com/x", "deadline_at": NOW + 60}
    await go(old, "1", fingerprint="F")
    await join(old, "j", prediction_=hook)
    await go(old, "2")
    await finish(old, "2")
    for store, is_own in ((old, True), (new, False)):
        assert bool(await store.open_runs()) is is_own
        assert bool(await store.deadlines()) is is_own
        assert bool(await store.awaiting_webhooks()) is is_own
        assert bool(await store.runs_ended(since=0.0)) is is_own
    await take_over(old, new)
    await new.nodes.take_ended_runs(new.identity.number, 0.0, 10)
    for store, is_own in ((old, False), (new, True)):
        assert bool(await store.open_runs()) is is_own
        assert bool(await store.deadlines()) is is_own
        assert bool(await store.awaiting_webhooks()) is is_own
        assert bool(await store.runs_ended(since=0.0)) is is_own


async def held(store: PostgresStore) -> None:
    message = Delivery(id="d1", kind=DeliveryKind.ANNOUNCEMENT, team="red", url="u", receiver="r", created_at=NOW)
    await store.add_delivery(message, b"body")
    (delivery,) = await store.claim_deliveries(NOW, NOW + 900, 10, Busy(per_receiver=9))
    assert delivery.id == "d1"


OF_A_HOLDER: dict[str, Callable[[PostgresStore], Awaitable[object]]] = {
    "delivered": lambda old: old.delivered("d1"),
    "postpone_delivery": lambda old: old.postpone_delivery("d1", NOW + 60, "refused", b"body"),
    "mark_dead": lambda old: old.mark_dead("d1", NOW, "refused", b"body"),
    "release_deliveries": lambda old: old.release_deliveries(["d1"]),
}


@pytest.mark.parametrize("name", OF_A_HOLDER)
async def test_result_of_a_delivery_that_another_node_holds_is_not_recorded(
    nodes: tuple[PostgresStore, PostgresStore], name: str
) -> None:
    old, new = nodes
    await held(old)
    assert await new.reclaim_deliveries() == 0, "its holder is alive"
    await new.nodes.leave(old.identity.number)
    assert await new.reclaim_deliveries() == 1
    assert len(await new.claim_deliveries(NOW, NOW + 900, 10, Busy(per_receiver=9))) == 1
    before = await snapshot(new)
    await OF_A_HOLDER[name](old)
    assert await snapshot(new) == before
    await OF_A_HOLDER[name](new)
    assert await snapshot(new) != before


async def test_claim_of_a_node_that_joins_meanwhile_is_kept(
    nodes: tuple[PostgresStore, PostgresStore], url: str
) -> None:
    """Who frees the claims of ended nodes could hold the new node for one that has ended."""
    old, new = nodes
    await held(old)
    await old.nodes.leave(old.identity.number)
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM deliveries FOR UPDATE")
        reclaiming = asyncio.ensure_future(new.reclaim_deliveries())
        await until_waiting(url, 1)
        joining = asyncio.ensure_future(old.nodes.join("again", 10.0))
        await until_waiting(url, 2, or_done=joining)
        if has_claimed := joining.done():
            other.execute("UPDATE deliveries SET held_by = %s", [joining.result()])
        other.commit()
    assert await reclaiming == (0 if has_claimed else 1)
    number = await joining
    await old.claim_deliveries(NOW, NOW + 900, 10, Busy(per_receiver=9))
    with psycopg.connect(url) as other:
        assert other.execute("SELECT held_by FROM deliveries WHERE held_until IS NOT NULL").fetchall() == [(number,)]


async def test_claim_that_another_node_makes_meanwhile_is_kept(
    nodes: tuple[PostgresStore, PostgresStore], url: str
) -> None:
    old, new = nodes
    await held(old)
    await old.nodes.leave(old.identity.number)
    with psycopg.connect(url) as other:
        other.execute("SELECT 1 FROM deliveries FOR UPDATE")
        reclaiming = asyncio.ensure_future(new.reclaim_deliveries())
        await until_waiting(url, 1)
        other.execute("UPDATE deliveries SET held_by = %s", [new.identity.number])
        other.commit()
    assert await reclaiming == 0


@pytest.mark.parametrize("name", ["take_runs", "take_ended_runs", "reclaim_deliveries"])
async def test_owner_is_looked_at_again_when_a_row_has_changed_meanwhile(
    nodes: tuple[PostgresStore, PostgresStore], name: str
) -> None:
    """PostgreSQL checks a row again that another step has changed, but not that it has no partner in an anti join."""
    given = {"number": 1, "limit": 10, "leader": LEADER, "most_bytes": 10, "since": 0.0}

    def step(db: Any) -> str:
        statement = db._sql[name]
        values = [given[each] for each in statement.names]
        return "\n".join(row[0] for row in db.connection.execute(b"EXPLAIN " + statement.text, values))

    plan = await nodes[0]._write(step)
    assert "LockRows" in plan or "Update" in plan
    assert "Anti Join" not in plan


async def until_waiting(url: str, count: int, *, or_done: asyncio.Future[int] | None = None) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(url, autocommit=True) as other:
        async for _ in attempts():
            if other.execute(query).fetchone() == (count,) or (or_done is not None and or_done.done()):
                return


async def test_ended_node_claims_no_deliveries(nodes: tuple[PostgresStore, PostgresStore]) -> None:
    old, new = nodes
    await held(old)
    await old.release_deliveries(["d1"])
    await new.nodes.leave(old.identity.number)
    assert await old.claim_deliveries(NOW, NOW + 900, 10, Busy(per_receiver=9)) == []
    (queued,) = await new.deliveries(state=DeliveryState.QUEUED)
    assert queued.held_until is None


async def test_ended_node_keeps_no_copies(nodes: tuple[PostgresStore, PostgresStore]) -> None:
    old, new = nodes
    await go(old, "1")
    await finish(old, "1")
    await old.claim_object(COPY.sha256, 3, NOW, NOW + 60)
    await new.nodes.leave(old.identity.number)
    assert await old.keep_copies("run1", [COPY], None) is None
    kept = await new.keep_copies("run1", [COPY], None)
    assert kept is not None
    assert kept.copies == (COPY,)


def test_every_step_of_runs_is_in_the_table_of_who_may_do_it() -> None:
    """A new step of runs, logs or deliveries has a line in the table of docs/architecture.md, Nodes."""
    text = ARCHITECTURE.read_text().partition("\n## Nodes\n")[2].partition("\n## ")[0]
    steps = {
        name
        for role in (Predictions, Sharing, EventLogs, Deliveries)
        for name, member in inspect.getmembers(role, inspect.isfunction)
        if not name.startswith("_")
    }
    reads = {
        *("prediction", "prediction_by_ticket", "predictions", "predictions_of", "owns_upstream_id", "open_runs"),
        *(
            "ended_run",
            "runs_to_clear",
            "runs_to_cancel",
            "create_outcome",
            "run",
            "runs_by_id",
            "intents",
            "shared_run",
            "deadlines",
            "cache_stats",
            "event_parts",
            "event_parts_since",
        ),
        *("delivery_body", "deliveries", "deliveries_of", "delivery_counts", "awaiting_webhooks"),
    }
    assert {step for step in steps - reads if f"`{step}`" not in text} == set()
