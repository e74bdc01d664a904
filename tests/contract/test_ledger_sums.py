"""The sums of the ledger: audited, rebuilt, and read by others."""

from typing import Any

from gateway.domain import quota
from gateway.domain.ledger import By, Settlement
from gateway.domain.quota import Counters
from gateway.domain.rates import Rate
from gateway.domain.records import Kind, Source
from gateway.store.interface import Store
from tests.support.audit import BY_TEST
from tests.support.meters import DAY, KEY, TEAM, USER, drift, held, spent, total, used
from tests.support.money import demand, settlement
from tests.support.records import NOW, finish, go, join, lead, live, prediction, start
from tests.support.stores import edit


async def busy_day(store: Store) -> None:
    await go(store, "1", fingerprint="F", prediction_={"user": "ann"}, reservation=demand())
    for n in range(20):
        await join(store, f"j{n}", prediction_={"user": f"u{n % 3}"})
    await finish(store, "1", settlement=settlement())
    for n in range(10):
        await start(store, f"h{n}", fingerprint="F", now=NOW + 20, prediction_={"team": "blue"})
    await store.adjust("red", -5, "why", NOW, actor=BY_TEST)


async def test_audit_in_batches_of_any_size_finds_no_drift(store: Store) -> None:
    await busy_day(store)
    for step in (1, 2, 7, 31, 32, 33, 1000):
        assert await drift(store, step=step) == []
    assert await drift(store, DAY + 1) == []


async def test_missing_or_invented_sum_is_found_and_rebuilt(store: Any) -> None:
    """Somebody edits the file by hand: the sums are rebuilt from the ledger."""
    await busy_day(store)
    good = {by: await used(store, by) for by in By}
    for change in (
        "UPDATE usage_days SET microusd = microusd + 1 WHERE team = 'red'",
        "DELETE FROM usage_users WHERE \"user\" = 'u1'",
        "UPDATE spent SET milliseconds = 0 WHERE scope = 'key/k1'",
        "UPDATE spent SET microusd = 1 WHERE scope = 'user/team red: ann'",
        f"INSERT INTO spent VALUES ('team/green', {DAY}, 1, 1)",
        f"INSERT INTO usage_days VALUES ('green', {DAY}, '', '', 1, 0, 0, 0, 0, 0)",
    ):
        before = await spent(store)
        await edit(store, change)
        assert await drift(store) != [], change
        await store.rebuild_day(DAY)
        assert await drift(store) == []
        assert {by: await used(store, by) for by in By} == good
        assert await spent(store) == before


async def test_wrong_reserved_amounts_are_recounted(store: Any) -> None:
    await lead(store, "1", prediction_={"user": "ann"}, reservation=demand(predictions=Rate.of(60, 1)))
    assert await store.recount_meters() == 0
    await edit(store, "UPDATE meters SET open = 9 WHERE scope = 'team/red'")
    await edit(store, "INSERT INTO meters VALUES ('team/green', 0, 5, 5, 0)")
    assert await store.recount_meters() == 2
    meters = await store.meters([TEAM, USER, "team/green"], NOW)
    assert meters[TEAM] == Counters(open=1, held_microusd=100, held_milliseconds=1000, full_at=NOW + 1)
    assert meters[USER].open == 1
    assert meters["team/green"] == Counters()


async def test_stuck_reservation_is_found_and_freed(store: Any) -> None:
    """Its run is gone or ended without a settlement; the reservation of an open run stays."""
    for n in ("1", "2", "3"):
        await go(store, n, reservation=demand())
    await edit(store, "DELETE FROM runs WHERE id = 'run1'")
    await store._write(
        lambda db: (
            db.connection.execute("UPDATE runs SET state = 'ended', status = 'failed' WHERE id = 'run2'").rowcount
        )
    )
    assert {each.run_id for each in await store.stuck_reservations(10)} == {"run1", "run2"}
    assert len(await store.stuck_reservations(1)) == 1
    assert await store.free_reservation("run1", None)
    assert not await store.free_reservation("run1", None)
    assert not await store.free_reservation("run2", None)
    assert await store.free_reservation("run2", settlement())
    assert not await store.free_reservation("run2", settlement())
    assert not await store.free_reservation("run3", settlement())
    assert await held(store) == (1, 100, 1000)
    assert (await total(store)).runs == 1
    assert await store.stuck_reservations(10) == []


async def test_newest_spend_is_returned_oldest_first(store: Store) -> None:
    """After a restart estimates are learned from the last ledger lines only."""
    assert await store.newest_spend(5) == []
    for n in range(6):
        await go(store, str(n))
        await finish(store, str(n), settlement=settlement(microusd=n))
    assert [each.microusd for each in await store.newest_spend(3)] == [3, 4, 5]


async def test_trainings_are_reserved_and_settled_like_predictions(store: Store) -> None:
    kind = {"kind": Kind.TRAINING}
    await lead(store, "1", run=kind, prediction_={**kind, "source": Source.BYPASS}, reservation=demand())
    await store.record_created(live("run1", **kind), prediction("up1", "run1", **kind))
    assert await held(store) == (1, 100, 1000)
    await finish(store, "1", settlement=settlement())
    assert await held(store) == (0, 0, 0)
    assert (await total(store)).runs == 1


async def test_limits_and_sums_use_the_same_scope_names(store: Store) -> None:
    assert quota.scopes_of("red", "k1", "ann") == (TEAM, KEY, USER)


async def test_ledger_line_of_a_run_is_found(store: Store) -> None:
    await go(store, "1")
    assert await store.spend_of("run1") is None
    await finish(store, "1", settlement=Settlement(at=NOW + 9, microusd=42, target="acme/toy", reason="succeeded"))
    line = await store.spend_of("run1")
    assert line is not None
    assert (line.run_id, line.microusd, line.team, line.reason) == ("run1", 42, "red", "succeeded")
