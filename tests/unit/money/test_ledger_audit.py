"""Estimates, warnings and the bookkeeper, on a real store with a clock that is moved by hand."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.domain import windows
from gateway.domain.ledger import By
from gateway.domain.limits import Allowance, Limits
from gateway.domain.records import Status
from gateway.domain.teams import Team
from gateway.errors import PriceUnknown
from gateway.money.budget_alerts import EXHAUSTED, WARNING, Budgets
from gateway.money.ledger_audit import LedgerAuditor
from gateway.money.pricing import Pricing
from gateway.money.rules.pricing import Price, PriceList, Rule, UnknownPolicy
from gateway.store.sqlite import SQLiteStore
from tests.contract.test_money import demand, settlement
from tests.support.clock import ManualClock
from tests.support.live import money, teams_of
from tests.support.observer import RecordingObserver
from tests.support.records import NOW, finish, go, lead, live, prediction

HOOK = "https://hooks.example.com/budget"


class Heard:
    """Remembers what was announced."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, Any]] = []

    async def announce(self, team: str, url: str, kind: str, payload: Any) -> None:
        assert url == HOOK
        self.said.append((team, kind, payload["percent"]))
        json.dumps(payload)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def heard() -> Any:
    return Heard()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    made = SQLiteStore(tmp_path / "gateway.db")
    await made.open()
    yield made
    await made.close()


def team(**limits: Any) -> Team:
    return Team(name="red", scopes=frozenset(), allowance=Allowance(own=Limits(**limits)))


@pytest.fixture
def budgets(store: SQLiteStore, clock: ManualClock, observer: Any, heard: Any) -> Budgets:
    limits = {"microusd_per_day": 1000, "microusd_per_month": 5000}
    made = Budgets(teams_of(team(**limits)), money(budget_webhooks={"red": HOOK}), store, clock, observer)
    made.announce_through(heard)
    return made


@pytest.fixture
def pricing(observer: Any) -> Pricing:
    return Pricing(money(PriceList(rules=(Rule("acme/*", Price(per_run=1)),))), observer)


@pytest.fixture
def ledger_auditor(
    store: SQLiteStore, pricing: Pricing, budgets: Budgets, clock: ManualClock, observer: Any
) -> LedgerAuditor:
    return LedgerAuditor(store, store, pricing, budgets, clock, observer, money())


async def spend(store: SQLiteStore, name: str, microusd: int, at: float = NOW) -> None:
    await go(store, name, reservation=demand(10))
    await finish(store, name, settlement=settlement(microusd, at=at))


class TestWarnings:
    async def test_eighty_and_a_hundred_per_cent_are_told_once_a_window(self, store, budgets, heard, clock):
        await spend(store, "1", 799)
        await budgets.check("red")
        assert heard.said == []
        await spend(store, "2", 1)
        for _ in range(3):
            await budgets.check("red")
        assert heard.said == [("red", WARNING, 80)]
        await spend(store, "3", 200)
        for _ in range(3):
            await budgets.check_all()
        assert heard.said[1:] == [("red", EXHAUSTED, 100)]

    async def test_who_is_beyond_everything_hears_of_that_alone(self, store, budgets, heard):
        """One dear run: not two messages at once."""
        await spend(store, "1", 5000)
        await budgets.check("red")
        assert sorted(heard.said) == [("red", EXHAUSTED, 100)] * 2

    async def test_the_next_day_warns_anew_and_the_month_does_not(self, store, budgets, heard, clock):
        await spend(store, "1", 4100)
        await budgets.check("red")
        assert [percent for *_, percent in heard.said] == [100, 80]
        await clock.advance(86_400)
        await spend(store, "2", 801, clock.now())
        await budgets.check("red")
        assert [percent for *_, percent in heard.said][2:] == [80]

    async def test_a_budget_that_refuses_though_not_all_is_spent_is_told_of(self, store, budgets, heard, clock):
        """What is left is less than any run costs: the team hears that it is over."""
        await spend(store, "1", 850)
        running = asyncio.create_task(budgets.run())
        budgets.on_budget_exhausted("red", "budget_usd_per_day")
        while not heard.said:
            await asyncio.sleep(0.001)
        assert heard.said == [("red", EXHAUSTED, 100)]
        running.cancel()

    async def test_one_request_too_large_for_the_budget_does_not_cry_wolf(self, store, budgets, heard):
        await spend(store, "1", 100)
        await budgets.check("red", refused="budget_usd_per_day")
        assert heard.said == []

    async def test_how_budgets_stand_is_shown(self, store, budgets, observer):
        await spend(store, "1", 100)
        await go(store, "2", reservation=demand(10))
        await budgets.check("red")
        assert [values[:2] for values in observer.of("budget")[-2:]] == [("red", "day"), ("red", "month")]

    async def test_a_touch_is_looked_at_once_a_second_at_most(self, store, budgets, clock, observer):
        running = asyncio.create_task(budgets.run())
        for _ in range(100):
            budgets.touched("red")
        while observer.count("budget") < 2:
            await asyncio.sleep(0.001)
        for _ in range(100):
            budgets.touched("red")
        await asyncio.sleep(0.01)
        assert observer.count("budget") == 2
        await clock.advance(1.1)
        while observer.count("budget") < 4:
            await asyncio.sleep(0.001)
        running.cancel()


class TestBookkeeper:
    async def test_a_start_mends_what_drifted_before_anything_is_admitted(
        self, store, ledger_auditor, observer, caplog
    ):
        await spend(store, "1", 70)
        await go(store, "2", reservation=demand(10))
        for edit in ("UPDATE spent SET microusd = 0", "UPDATE meters SET open = 7", "DELETE FROM usage_days"):
            await store._write(lambda db, edit=edit: db.execute(edit).rowcount)
        await ledger_auditor.start()
        assert observer.last("ledger_drift")[0] > 0
        assert any(record.levelname == "ERROR" for record in caplog.records)
        meter = (await store.meters(["team/red"], NOW))["team/red"]
        assert (meter.open, meter.held_microusd, meter.day_microusd) == (1, 10, 70)
        (row,) = await store.usage(By.TEAM, since=0, until=10**6)
        assert row.microusd == 70
        await ledger_auditor.start()
        assert observer.last("ledger_drift") == (0,)

    async def test_soon_after_a_start_the_whole_month_has_been_looked_at(self, store, pricing, budgets, observer):
        """Drift of three weeks ago would still be in the month's budget."""
        await spend(store, "1", 70)
        await store._write(lambda db: db.execute("UPDATE spent SET microusd = 0").rowcount)
        later = ManualClock(NOW + 5 * 86_400)
        assert windows.first_day(windows.Window.MONTH, windows.day_of(later.now())) <= windows.day_of(NOW)
        ledger_auditor = LedgerAuditor(store, store, pricing, budgets, later, observer, money())
        running = asyncio.create_task(ledger_auditor.run())
        while ("ledger_drift", (0,)) in observer.noted or observer.count("ledger_drift") == 0:
            await asyncio.sleep(0.01)
        assert (await store.meters(["team/red"], NOW))["team/red"].month_microusd == 70
        running.cancel()

    async def test_every_day_of_the_month_is_audited_in_its_turn(self, store, pricing, budgets, observer, clock):
        await spend(store, "1", 70)
        await store._write(lambda db: db.execute("UPDATE spent SET microusd = 0").rowcount)
        later = ManualClock(NOW + 5 * 86_400)
        ledger_auditor = LedgerAuditor(store, store, pricing, budgets, later, observer, money())
        found = [await ledger_auditor.audit() for _ in range(31)]
        assert sum(found) > 0
        assert found[-1] == 0

    async def test_what_is_stuck_is_freed_and_told_of(self, store, ledger_auditor, observer, clock, caplog):
        for n in ("1", "2", "3"):
            await go(store, n, reservation=demand(10))
        edits = (
            "DELETE FROM runs WHERE id = 'run1'",
            "UPDATE runs SET state = 'ended', status = 'succeeded' WHERE id = 'run2'",
        )
        for edit in edits:
            await store._write(lambda db, edit=edit: db.execute(edit).rowcount)
        await clock.advance(3601)
        await ledger_auditor.turn()
        assert observer.count("reservation_stuck") == 2
        assert observer.last("unsettled") == (1,)
        assert (await store.meters(["team/red"], NOW))["team/red"].open == 1
        (row,) = await store.usage(By.TEAM, since=0, until=10**6)
        assert (row.runs, row.microusd) == (1, 1_000_000)

    async def test_lines_go_after_their_time_and_never_before_two_months_are_over(self, store, ledger_auditor, clock):
        await spend(store, "1", 70)
        for days, kept in ((31, 1), (31, 0)):
            await clock.advance(days * 86_400)
            await ledger_auditor.turn()
            assert len(await store.newest_spend(10)) == kept
        (row,) = await store.usage(By.TEAM, since=0, until=10**6)
        assert row.microusd == 70

    async def test_it_goes_on_when_the_store_is_away_for_a_turn(self, store, ledger_auditor, clock, caplog):
        running = asyncio.create_task(ledger_auditor.run())
        await asyncio.sleep(0.2)
        await store.close()
        await clock.advance(61)
        assert any("could not finish" in record.message for record in caplog.records)
        assert not running.done()
        running.cancel()


class TestPricing:
    def test_a_settlement_says_what_by_which_end_and_for_which_model(self, pricing):
        document = b'{"id":"a","status":"succeeded","model":"acme/toy","metrics":{"predict_time":1.5}}'
        run = live(target="a" * 64)
        made = pricing.settlement(run, Status.SUCCEEDED, document, NOW)
        assert (made.microusd, made.milliseconds, made.target, made.reason) == (
            1_000_000,
            1500,
            "acme/toy",
            "succeeded",
        )

    def test_a_document_that_cannot_be_read_still_settles(self, pricing, observer, caplog):
        """Nothing is left held because upstream wrote nonsense."""
        made = pricing.settlement(live(), Status.FAILED, b"\xff nonsense", NOW)
        assert made.microusd == 0
        pricing.note(live(status=Status.FAILED), made)
        assert observer.last("charge_doubted") == ("document-unreadable",)

    def test_without_a_price_nothing_is_estimated(self, observer):
        pricing = Pricing(money(PriceList(unknown=UnknownPolicy.REFUSE)), observer)
        with pytest.raises(PriceUnknown) as caught:
            pricing.estimate("acme/toy", b"{}")
        assert "prices.unknown" in caught.value.detail
        # A run that was let in before the rule still ends and is charged.
        assert pricing.settlement(live(), Status.SUCCEEDED, b'{"metrics":{"predict_time":2}}', NOW).microusd > 0

    async def test_estimates_are_learned_and_outlive_the_process(self, store, observer):
        prices = PriceList(rules=(Rule("acme/*", Price(per_second=1)),))
        pricing = Pricing(money(prices), observer)
        assert pricing.estimate("acme/toy", b"{}").microusd == 60_000_000
        document = b'{"id":"a","status":"succeeded","metrics":{"predict_time":2}}'
        for n in range(6):
            run = await go(store, str(n), reservation=demand(10))
            made = pricing.settlement(run, Status.SUCCEEDED, document, NOW + n)
            await finish(store, str(n), settlement=made)
            pricing.note(live(f"run{n}", status=Status.SUCCEEDED), made)
        learned = pricing.estimate("acme/toy:" + "a" * 64, b"{}")
        assert learned.microusd == 2_000_000
        again = Pricing(money(prices), observer)
        await again.load(store)
        assert again.learned == 1
        assert again.estimate("acme/toy", b"{}") == learned


async def test_leaders_placeholders_are_paid_for(store: SQLiteStore) -> None:
    """News of the end before the answer: the line names the prediction that there was."""
    await lead(store, "1", reservation=demand())
    await finish(store, "1", settlement=settlement())
    (line,) = await store.newest_spend(1)
    assert line.prediction_id == "p1"
    await store.record_created(live("run1"), prediction("up1", "run1"))
    assert len(await store.newest_spend(5)) == 1
