"""Money: reserved with the intent, settled with the end, recorded in the ledger in the same transactions."""

import asyncio
from collections import Counter

import pytest

from gateway.domain import windows
from gateway.domain.ledger import MOST_USERS_A_DAY, BudgetWarning, By, Entry, EntryKind, Settlement, Usage
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import Counters, ReservationRequest, RunLimits
from gateway.domain.rates import Rate
from gateway.domain.records import Status
from gateway.domain.run_end import RunEnded
from gateway.predictions.ports.sharing import Hit, Joined, Refused, Started
from gateway.store.interface import Store
from tests.support.audit import BY_TEST
from tests.support.meters import DAY, KEY, TEAM, USER, drift, held, spent, total, used
from tests.support.money import demand, settlement
from tests.support.records import NOW, ended, finish, go, idempotency, join, lead, live, prediction, start
from tests.support.stores import StoreMaker


async def test_create_reserves_for_team_key_and_user(store: Store) -> None:
    await lead(store, "1", prediction_={"user": "ann"}, reservation=demand())
    for scope in (TEAM, KEY, USER):
        assert await held(store, scope) == (1, 100, 1000)
    assert await store.unsettled(NOW + 1) == 1
    assert await store.unsettled(NOW) == 0


@pytest.mark.parametrize("state", ["intended", "live", "ended"])
async def test_hits_joins_and_replays_reserve_nothing(store: Store, state: str) -> None:
    """Sharing a run needs no concurrency slot and no budget, however little of either is left."""
    await lead(store, "1", fingerprint="F", reservation=demand(concurrent=1))
    if state != "intended":
        await store.record_created(live("run1"), prediction("up1", "run1"))
    if state == "ended":
        await finish(store, "1", settlement=settlement())
    before = await held(store)
    outcome = await start(store, "2", fingerprint="F", now=NOW + 20, reservation=demand(microusd_per_day=0))
    assert isinstance(outcome, Joined | Hit)
    assert await held(store) == before
    assert await store.stuck_reservations(10) == []


async def test_create_over_a_limit_stores_nothing(store: Store) -> None:
    """The outcome names the limit; no intent, prediction or key is stored, and no other limit is charged."""
    allowances = (
        RunLimits(of=SubjectKind.TEAM, scope=TEAM, predictions=Rate.of(60, 1), concurrent=5),
        RunLimits(of=SubjectKind.USER, scope=USER, microusd_per_day=99),
    )
    outcome = await start(store, "1", prediction_={"user": "ann"}, reservation=ReservationRequest(100, 0, allowances))
    assert isinstance(outcome, Refused)
    standing = outcome.refusal.status
    assert (standing.name, standing.of, standing.limit, standing.remaining) == (
        "budget_usd_per_day",
        SubjectKind.USER,
        99,
        99,
    )
    assert await store.run("run1") is None
    assert await store.predictions_of("run1") == []
    assert await store.meters([TEAM, USER], NOW) == {TEAM: Counters(), USER: Counters()}
    assert isinstance(await start(store, "1", reservation=demand(predictions=Rate.of(60, 1))), Started)


async def test_refused_request_can_reuse_its_key(store: Store) -> None:
    """The refusal does not use up its idempotency key."""
    await lead(store, "0", reservation=demand(concurrent=1))
    refused = await start(store, "1", idempotency=idempotency(), reservation=demand(concurrent=1))
    assert isinstance(refused, Refused)
    await store.discard_intent("run0")
    assert isinstance(await start(store, "1", idempotency=idempotency(), reservation=demand(concurrent=1)), Started)


async def test_concurrent_creates_never_exceed_the_budget(store: Store) -> None:
    """A hundred callers at one moment, budget for seven: seven are admitted."""
    outcomes = await asyncio.gather(
        *(start(store, str(n), reservation=demand(100, microusd_per_day=750)) for n in range(100))
    )
    assert Counter(type(each) for each in outcomes) == {Started: 7, Refused: 93}
    assert await held(store) == (7, 700, 7000)


async def test_rate_limit_is_charged_with_the_reservation(store: Store) -> None:
    wanted = demand(predictions=Rate.of(60, 2))
    outcomes = [type(await start(store, str(n), reservation=wanted)) for n in range(3)]
    assert outcomes == [Started, Started, Refused]
    # A discarded create still counts towards the rate.
    await store.discard_intent("run0")
    assert isinstance(await start(store, "4", reservation=wanted), Refused)
    assert isinstance(await start(store, "5", now=NOW + 1, reservation=wanted), Started)


async def test_discarded_intent_frees_its_reservation(store: Store) -> None:
    await lead(store, "1", reservation=demand())
    await store.discard_intent("run1")
    assert await held(store) == (0, 0, 0)
    assert await store.unsettled(NOW + 9999) == 0


async def test_reservation_survives_a_restart(store: Store, another: StoreMaker) -> None:
    await lead(store, "1", reservation=demand())
    other = another()
    await other.open()
    assert await held(other) == (1, 100, 1000)
    await other.close()


async def test_run_across_midnight_is_charged_to_the_day_it_ends(store: Store) -> None:
    """Reserved yesterday, ended today: it uses today's budget."""
    tomorrow = windows.ends_at(windows.Window.DAY, NOW)
    await go(store, "1", reservation=demand())
    assert isinstance(await start(store, "2", now=tomorrow, reservation=demand(1, microusd_per_day=100)), Refused)
    await finish(store, "1", settlement=settlement(at=tomorrow + 1))
    assert await spent(store) == (0, 70, 0, 900)
    assert await spent(store, now=tomorrow) == (70, 70, 900, 900)


async def test_month_is_the_sum_of_its_days(store: Store) -> None:
    month_end = windows.ends_at(windows.Window.MONTH, NOW)
    for n, at in enumerate((NOW, month_end - 1, month_end)):
        await go(store, str(n), reservation=demand())
        await finish(store, str(n), settlement=settlement(at=at))
    assert await spent(store) == (70, 140, 900, 1800)
    assert await spent(store, now=month_end) == (70, 70, 900, 900)


@pytest.mark.parametrize("status", [Status.SUCCEEDED, Status.FAILED, Status.CANCELED, Status.ABORTED])
async def test_end_settles_the_reservation_once(store: Store, status: Status) -> None:
    """The reservation is freed and the cost recorded: once, however often the end is reported."""
    await go(store, "1", prediction_={"user": "ann"}, reservation=demand())
    for _ in range(2):
        await store.advance("run1", status=status, document=b"", stream_url=None, at=NOW + 9, settlement=settlement())
    for scope in (TEAM, KEY):
        assert await held(store, scope) == (0, 0, 0)
        assert await spent(store, scope) == (70, 70, 900, 900)
    assert await total(store) == Usage(team="red", runs=1, milliseconds=900, microusd=70)
    (line,) = await store.newest_spend(10)
    assert line == Entry(
        at=NOW + 9,
        team="red",
        key_id="k1",
        user="ann",
        target="acme/toy",
        run_id="run1",
        prediction_id="up1",
        kind=EntryKind.SPEND,
        milliseconds=900,
        microusd=70,
        scopes=(TEAM, KEY, USER),
    )


async def test_run_whose_cost_is_unknown_is_charged_what_was_reserved(store: Store) -> None:
    """The reservation becomes the charge, in the ledger and in the value that listeners get."""
    await lead(store, reservation=demand())
    await store.record_created(live(), prediction("up1", "run1"))
    unknown = Settlement(at=NOW + 9, target="acme/toy", reason="failed; run-unreadable", at_estimate=True)
    ended_ = await store.advance(
        "run1", status=Status.FAILED, document=b"{}", stream_url=None, at=NOW + 9, settlement=unknown
    )
    assert isinstance(ended_, RunEnded)
    assert (ended_.settlement.microusd, ended_.settlement.milliseconds) == (100, 1000)
    assert ended_.settlement.reason == "failed; run-unreadable"
    line = await store.spend_of("run1")
    assert line is not None
    assert (line.microusd, line.milliseconds) == (100, 1000)
    assert await held(store) == (0, 0, 0)
    assert (await spent(store))[0] == 100


async def test_progress_settles_nothing(store: Store) -> None:
    await go(store, "1", reservation=demand())
    await store.advance(
        "run1", status=Status.PROCESSING, document=b"", stream_url=None, at=NOW + 9, settlement=settlement()
    )
    assert await held(store) == (1, 100, 1000)
    assert await used(store) == []


async def test_run_that_ended_in_the_create_is_settled_with_its_record(store: Store) -> None:
    await lead(store, "1", reservation=demand())
    for _ in range(2):
        await store.record_created(ended("run1"), prediction("up1", "run1"), settlement())
    assert await held(store) == (0, 0, 0)
    assert (await total(store)).microusd == 70


async def test_end_before_the_create_response_is_settled_once(store: Store) -> None:
    """The webhook arrives before the response to the create."""
    await lead(store, "1", reservation=demand())
    await finish(store, "1", settlement=settlement())
    await store.record_created(ended("run1"), prediction("up1", "run1"), settlement(microusd=1))
    assert await held(store) == (0, 0, 0)
    assert await total(store) == Usage(team="red", runs=1, milliseconds=900, microusd=70)


async def test_run_without_a_reservation_is_still_charged(store: Store) -> None:
    """It started before the gateway had reservations."""
    await go(store, "1")
    await finish(store, "1", settlement=settlement())
    assert (await total(store)).microusd == 70


async def test_end_without_a_price_frees_the_reservation(store: Store) -> None:
    await go(store, "1", reservation=demand())
    await finish(store, "1")
    assert await held(store) == (0, 0, 0)
    assert await total(store) == Usage(team="red", runs=1)


async def test_concurrent_ends_add_up(store: Store) -> None:
    for n in range(50):
        await go(store, str(n), reservation=demand())
    await asyncio.gather(*(finish(store, str(n), settlement=settlement(microusd=n)) for n in range(50)))
    assert await total(store) == Usage(team="red", runs=50, microusd=sum(range(50)), milliseconds=50 * 900)
    assert await held(store) == (0, 0, 0)


async def test_hit_saves_the_cost_of_its_run(store: Store) -> None:
    await go(store, "1", fingerprint="F")
    await finish(store, "1", settlement=settlement())
    await start(store, "2", fingerprint="F", now=NOW + 20, prediction_={"team": "blue", "key_id": "k2", "user": "bob"})
    blue, red = await used(store)
    assert red == Usage(team="red", runs=1, milliseconds=900, microusd=70)
    assert blue == Usage(team="blue", hits=1, saved_microusd=70)
    (row,) = await used(store, By.USER, team="blue")
    assert row == Usage(team="blue", what="bob", hits=1, saved_microusd=70)
    assert await spent(store, "team/blue") == (0, 0, 0, 0)


async def test_joins_record_one_saving_each_at_the_end(store: Store) -> None:
    """The starter pays; a caller who joined and cancelled saved as well; a detached one did not."""
    await go(store, "1", fingerprint="F", reservation=demand())
    for n in ("2", "3", "4"):
        await join(store, n, prediction_={"key_id": f"k{n}"})
    await store.cancel("p2", NOW + 2)
    await store.detach("p3")
    assert await used(store) == []
    await finish(store, "1", settlement=settlement())
    assert await total(store) == Usage(team="red", runs=1, joined=2, milliseconds=900, microusd=70, saved_microusd=140)
    by_key = {row.what: (row.runs, row.joined) for row in await used(store, By.KEY)}
    assert by_key == {"k1": (1, 0), "k2": (0, 1), "k4": (0, 1)}


async def test_prediction_detached_after_the_end_saved_nothing(store: Store) -> None:
    await go(store, "1", provisional="P")
    await start(store, "2", provisional="P")
    await finish(store, "1", settlement=settlement())
    assert (await total(store)).joined == 1
    for _ in range(2):
        await store.detach("p2")
    assert await total(store) == Usage(team="red", runs=1, milliseconds=900, microusd=70)
    assert await drift(store) == []


async def test_usage_is_grouped_as_requested(store: Store) -> None:
    month_end = windows.ends_at(windows.Window.MONTH, NOW)
    for n, (target, user, at) in enumerate(
        [("acme/toy", "ann", NOW), ("acme/toy", None, NOW + 60), ("acme/big", "ann", month_end)]
    ):
        await go(store, str(n), prediction_={"user": user}, reservation=demand())
        made = Settlement(at=at, microusd=10 * (n + 1), milliseconds=1, target=target)
        await finish(store, str(n), settlement=made)
    rows = {by: [(row.what, row.runs, row.microusd) for row in await used(store, by, team="red")] for by in By}
    assert rows == {
        By.TEAM: [(None, 3, 60)],
        By.DAY: [(DAY, 2, 30), (windows.day_of(month_end), 1, 30)],
        By.KEY: [("k1", 3, 60)],
        By.MODEL: [("acme/big", 1, 30), ("acme/toy", 2, 30)],
        By.USER: [("ann", 2, 40), ("", 1, 20)],
        By.TAG: [(None, 3, 60)],
    }
    (row,) = await used(store, since=DAY, until=DAY)
    assert row.microusd == 30
    assert await used(store, since=DAY - 1, until=DAY - 1) == []
    assert await used(store, team="blue") == []
    assert len(await used(store, By.MODEL, limit=1)) == 1


async def test_adjustments_count_as_spent_from_then_on(store: Store) -> None:
    """A credit adds budget, a debit uses it; each has its own ledger line."""
    for microusd in (500, -200):
        await store.adjust("red", microusd, "why", NOW, actor=BY_TEST)
    assert await spent(store) == (300, 300, 0, 0)
    assert await total(store) == Usage(team="red", microusd=300)
    assert isinstance(await start(store, "1", reservation=demand(100, microusd_per_day=399)), Refused)
    assert isinstance(await start(store, "2", reservation=demand(100, microusd_per_day=400)), Started)


async def test_adjustment_with_a_known_id_is_the_same_one(store: Store) -> None:
    """Its answer was lost, so it is made again."""
    assert [
        await store.adjust("red", 500, "why", NOW, adjustment_id=each, actor=BY_TEST) for each in ("a", "a", "b")
    ] == [
        True,
        False,
        True,
    ]
    assert await total(store) == Usage(team="red", microusd=1000)
    assert await drift(store) == []


async def test_users_beyond_the_daily_bound_are_counted_as_other(store: Store) -> None:
    """Callers choose the names of users; a day keeps a bounded number, and the sums stay right."""
    await go(store, "1", fingerprint="F")
    await finish(store, "1", settlement=settlement(), cache_until=NOW + 99)
    for n in range(MOST_USERS_A_DAY + 5):
        await start(store, f"h{n}", fingerprint="F", now=NOW + 20, prediction_={"user": f"u{n}"})
    rows = {row.what: row.hits for row in await used(store, By.USER)}
    assert len(rows) == MOST_USERS_A_DAY + 1
    assert rows["other"] == 6
    assert await drift(store) == []
    await store.rebuild_day(DAY)
    assert {row.what: row.hits for row in await used(store, By.USER)} == rows


async def test_usage_includes_deleted_records(store: Store) -> None:
    await go(store, "1", prediction_={"user": "ann"})
    await finish(store, "1", settlement=settlement())
    assert await store.delete_records(NOW + 9999, 10) == 1
    assert await store.run("run1") is None
    assert (await total(store)).microusd == 70
    assert await drift(store) == []


async def test_ledger_lines_and_user_names_expire_and_sums_stay(store: Store) -> None:
    for n in range(3):
        await go(store, str(n), prediction_={"user": f"u{n}"}, reservation=demand())
        await finish(store, str(n), settlement=settlement(at=NOW + n * 86_400))
    rest = {"spent_before": DAY - 9, "now": NOW}
    steps = 0
    while await store.prune_ledger(lines_before=DAY + 2, limit=1, **rest):
        steps += 1
    assert steps >= 4
    assert {row.what: row.microusd for row in await used(store, By.USER)} == {"other": 140, "u2": 70}
    assert await total(store) == Usage(team="red", runs=3, milliseconds=2700, microusd=210)
    assert (await store.audit_day(DAY, 0, 10)).lines == 0
    assert (await store.audit_day(DAY + 2, 0, 10)).lines == 1
    assert await spent(store) == (70, 210, 900, 2700)
    await store.prune_ledger(lines_before=DAY, spent_before=DAY + 1, now=NOW, limit=50)
    assert await spent(store) == (0, 140, 0, 1800)


async def test_idle_counters_are_deleted_and_busy_ones_kept(store: Store) -> None:
    """A user who came once leaves no row; one whose rate limit is not replenished yet does."""
    await lead(store, "1", reservation=demand(predictions=Rate.of(60, 2)))
    await store.discard_intent("run1")
    await lead(store, "2", run={"team": "blue"}, prediction_={"team": "blue"}, reservation=ReservationRequest(1, 1))
    prune = {"lines_before": 0, "spent_before": 0, "limit": 50}
    await store.prune_ledger(now=NOW, **prune)
    assert (await store.meters([TEAM], NOW))[TEAM].full_at == NOW + 1
    await store.prune_ledger(now=NOW + 1, **prune)
    assert (await store.meters([TEAM], NOW))[TEAM] == Counters()
    assert await held(store, "team/blue") == (1, 1, 1)


async def test_budget_warning_is_sent_once_per_window(store: Store, another: StoreMaker) -> None:
    assert await store.warned("red", "budget_usd_per_day", DAY) == 0
    assert await store.warn_once(BudgetWarning("red", "budget_usd_per_day", DAY, 80))
    assert await store.warned("red", "budget_usd_per_day", DAY) == 80
    assert not await store.warn_once(BudgetWarning("red", "budget_usd_per_day", DAY, 80))
    assert await store.warn_once(BudgetWarning("red", "budget_usd_per_day", DAY, 100))
    assert await store.warned("red", "budget_usd_per_day", DAY) == 100
    assert await store.warned("red", "budget_usd_per_month", DAY) == 0
    assert await store.warn_once(BudgetWarning("red", "budget_usd_per_day", DAY + 1, 80))
    other = another()
    await other.open()
    assert not await other.warn_once(BudgetWarning("red", "budget_usd_per_day", DAY, 80))
    await other.close()
