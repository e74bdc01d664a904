"""Estimates, warnings and the bookkeeper, on a real store with a clock that is moved by hand."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from gateway.domain import windows
from gateway.domain.ledger import BudgetWarning, By
from gateway.domain.limits import Allowance, Limits, SubjectKind
from gateway.domain.quota import ReservationRequest, RunLimits
from gateway.domain.records import Status
from gateway.domain.teams import Caller, Team
from gateway.errors import PriceUnknown, StoreUnavailable
from gateway.money.budget_alerts import Budgets, Touched
from gateway.money.ledger_audit import LedgerAuditor
from gateway.money.ports import Announcer, KeyOwners, Ledger
from gateway.money.pricing import Pricing
from gateway.money.rules.alerts import EXHAUSTED, WARNING
from gateway.money.rules.pricing import Price, PriceList, Rule, UnknownPolicy
from gateway.money.settings import AlertSettings
from gateway.store.sqlite import SQLiteStore
from tests.support.clock import ManualClock
from tests.support.live import money, teams_of
from tests.support.money import demand, settlement
from tests.support.observer import RecordingObserver
from tests.support.polling import holds, until
from tests.support.records import NOW, finish, go, lead, live, prediction
from tests.support.stores import edit

HOOK = "https://hooks.example.com/budget"
OF_TEAM = RunLimits(of=SubjectKind.TEAM, scope="team/red", microusd_per_day=1000, microusd_per_month=5000)


class Heard:
    """Remembers what was announced."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.said: list[tuple[str, str, Any]] = []
        self.data: list[Any] = []
        self.is_away = False

    async def announce(self, warning: BudgetWarning, url: str, body: bytes) -> bool:
        if self.is_away:
            raise StoreUnavailable("The store is away.")
        assert url == HOOK
        is_first = await self._ledger.warn_once(warning)
        if is_first:
            message = json.loads(body)
            self.data.append(message["data"])
            self.said.append((warning.team, message["type"], message["data"]["percent"]))
        return is_first


class Owners:
    """Knows one key."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def owner(self, team: str, key_id: str) -> Caller | None:
        return self._caller if (team, key_id) == ("red", self._caller.key_id) else None


if TYPE_CHECKING:
    _: type[Announcer] = Heard
    _owners: type[KeyOwners] = Owners


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def heard(store: SQLiteStore) -> Any:
    return Heard(store)


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
    settings = money(alerts={"red": AlertSettings(url=HOOK)})
    made = Budgets(teams_of(team(**limits)), settings, store, clock, observer)
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
    async def test_budget_warnings_come_once_a_window_at_80_and_100_percent(self, store, budgets, heard, clock):
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

    async def test_budget_passed_at_once_sends_one_warning(self, store, budgets, heard):
        """One expensive run: not two messages at once."""
        await spend(store, "1", 5000)
        await budgets.check("red")
        assert sorted(heard.said) == [("red", EXHAUSTED, 100)] * 2

    async def test_warning_that_could_not_be_queued_is_given_at_the_next_check(self, store, budgets, heard):
        """The store was away for a moment."""
        await spend(store, "1", 800)
        heard.is_away = True
        with pytest.raises(StoreUnavailable):
            await budgets.check("red")
        heard.is_away = False
        await budgets.check("red")
        assert heard.said == [("red", WARNING, 80)]

    async def test_two_checks_at_once_warn_once(self, store, budgets, heard):
        await spend(store, "1", 800)
        await asyncio.gather(budgets.check("red"), budgets.check("red"))
        assert heard.said == [("red", WARNING, 80)]

    async def test_next_day_warns_again_and_the_month_does_not(self, store, budgets, heard, clock):
        await spend(store, "1", 4100)
        await budgets.check("red")
        assert [percent for *_, percent in heard.said] == [100, 80]
        await clock.advance(86_400)
        await spend(store, "2", 801, clock.now())
        await budgets.check("red")
        assert [percent for *_, percent in heard.said][2:] == [80]

    async def test_refusing_budget_warns_though_not_all_is_spent(self, store, budgets, heard, clock):
        """What is left is less than any run costs: the team learns that it is used up."""
        await spend(store, "1", 850)
        running = asyncio.create_task(budgets.run())
        budgets.on_budget_exhausted("red", OF_TEAM, "budget_usd_per_day")
        await until(lambda: heard.said)
        assert heard.said == [("red", EXHAUSTED, 100)]
        running.cancel()

    async def test_one_oversized_request_sends_no_warning(self, store, budgets, heard):
        await spend(store, "1", 100)
        await budgets.check("red", Touched(refused={"team/red": OF_TEAM}, names={("team/red", "budget_usd_per_day")}))
        assert heard.said == []

    async def test_thresholds_are_those_of_the_team(self, store, clock, observer, heard):
        """Passed at once, only the highest is told. An empty list turns alerts off."""
        given = {"red": AlertSettings(url=HOOK, thresholds=(50, 90))}
        for expected, settings in (([], {"red": AlertSettings(url=HOOK, thresholds=())}), ([50, 90], given)):
            budgets = Budgets(teams_of(team(microusd_per_day=1000)), money(alerts=settings), store, clock, observer)
            budgets.announce_through(heard)
            for microusd in (500, 100, 400):
                await spend(store, f"{expected}{microusd}", microusd if expected else 0)
                await budgets.check("red")
            assert heard.said == [("red", WARNING, percent) for percent in expected]

    async def test_budgets_of_keys_and_users_alert_when_their_runs_end(self, store, budgets, heard):
        """Each is told once, with whose it is; the team's budgets are told as before."""
        allowance = Allowance(own=Limits(microusd_per_day=500), per_user=Limits(microusd_per_month=400))
        owner = Caller(team=team(), key_id="k1", scopes=frozenset(), models=(), allowance=allowance)
        budgets.find_limits_through(Owners(owner))
        of_user = RunLimits(of=SubjectKind.USER, scope="user/key k1: ann", microusd_per_month=400)
        await go(store, "1", reservation=ReservationRequest(10, 10, (of_user,)), prediction_={"user": "ann"})
        await finish(store, "1", settlement=settlement(400))
        for _ in range(2):
            await budgets.check("red", Touched(spenders={("k1", "ann", ""), ("k1", None, "")}))
        said = {(each["percent"], each["limit"]["of"], each.get("key"), each.get("user")) for each in heard.data}
        assert said == {(80, "key", "k1", None), (100, "user", "k1", "ann")}
        assert len(heard.data) == 2

    async def test_budgets_of_tags_alert_when_their_runs_end(self, store, clock, observer, heard):
        """One value has a budget of its own, each other one the tag's."""
        per_tag = {"project": Limits(microusd_per_day=500), "project:b": Limits(microusd_per_month=800)}
        red = replace(team(), per_tag=per_tag)
        alerts = {"red": AlertSettings(url=HOOK)}
        budgets = Budgets(teams_of(red), money(alerts=alerts), store, clock, observer)
        budgets.announce_through(heard)
        budgets.find_limits_through(Owners(Caller(team=red, key_id="k1", scopes=frozenset(), models=())))
        for project in "ab":
            tagged = f'{{"project":"{project}"}}'
            await go(store, project, reservation=ReservationRequest(10, 10), prediction_={"tags": tagged})
            await finish(store, project, settlement=settlement(400))
            for _ in range(2):
                await budgets.check("red", Touched(spenders={("k1", None, tagged)}))
        (data,) = heard.data
        assert (data["percent"], data["tag"], data["value"], data["limit"]["of"]) == (80, "project", "a", "tag")
        assert data["limit"]["name"] == "budget_usd_per_day"

    async def test_budget_standings_are_exported(self, store, budgets, observer):
        await spend(store, "1", 100)
        await go(store, "2", reservation=demand(10))
        await budgets.check("red")
        assert [values[:2] for values in observer.of("budget")[-2:]] == [("red", "day"), ("red", "month")]

    async def test_touched_team_is_checked_at_most_once_a_second(self, store, budgets, clock, observer):
        running = asyncio.create_task(budgets.run())
        for _ in range(100):
            budgets.touched("red")
        await until(lambda: observer.count("budget") >= 2)
        for _ in range(100):
            budgets.touched("red")
        await holds(lambda: observer.count("budget") == 2)
        await clock.advance(1.1)
        await until(lambda: observer.count("budget") >= 4)
        running.cancel()


class TestBookkeeper:
    async def test_audit_tells_how_many_values_a_tag_has_today(self, store, ledger_auditor, observer):
        """An operator sees that an app sends more values than usage counts by name."""
        for n, project in enumerate("abb"):
            await lead(store, f"{n}", prediction_={"tags": f'{{"feature":"x","project":"{project}"}}'})
            await finish(store, f"{n}", settlement=settlement(1, at=NOW))
        await ledger_auditor.start()
        assert observer.last("tag_values") == (2,)

    async def test_start_corrects_drift_before_any_create(self, store, ledger_auditor, observer, caplog):
        await spend(store, "1", 70)
        await go(store, "2", reservation=demand(10))
        for change in ("UPDATE spent SET microusd = 0", "UPDATE meters SET open = 7", "DELETE FROM usage_days"):
            await edit(store, change)
        await ledger_auditor.start()
        assert observer.last("ledger_drift")[0] > 0
        assert any(record.levelname == "ERROR" for record in caplog.records)
        meter = (await store.meters(["team/red"], NOW))["team/red"]
        assert (meter.open, meter.held_microusd, meter.day_microusd) == (1, 10, 70)
        (row,) = await store.usage(By.TEAM, since=0, until=10**6)
        assert row.microusd == 70
        await ledger_auditor.start()
        assert observer.last("ledger_drift") == (0,)

    async def test_whole_month_is_audited_soon_after_a_start(self, store, pricing, budgets, observer):
        """Drift of three weeks ago would still be in the month's budget."""
        await spend(store, "1", 70)
        await edit(store, "UPDATE spent SET microusd = 0")
        later = ManualClock(NOW + 5 * 86_400)
        assert windows.first_day(windows.Window.MONTH, windows.day_of(later.now())) <= windows.day_of(NOW)
        ledger_auditor = LedgerAuditor(store, store, pricing, budgets, later, observer, money())
        running = asyncio.create_task(ledger_auditor.run())
        await until(lambda: ("ledger_drift", (0,)) not in observer.noted and observer.count("ledger_drift"))
        assert (await store.meters(["team/red"], NOW))["team/red"].month_microusd == 70
        running.cancel()

    async def test_every_day_of_the_month_is_audited_in_turn(self, store, pricing, budgets, observer, clock):
        await spend(store, "1", 70)
        await edit(store, "UPDATE spent SET microusd = 0")
        later = ManualClock(NOW + 5 * 86_400)
        ledger_auditor = LedgerAuditor(store, store, pricing, budgets, later, observer, money())
        found = [await ledger_auditor.audit() for _ in range(31)]
        assert sum(found) > 0
        assert found[-1] == 0

    async def test_stuck_reservations_are_freed_and_reported(self, store, ledger_auditor, observer, clock, caplog):
        for n in ("1", "2", "3"):
            await go(store, n, reservation=demand(10))
        edits = (
            "DELETE FROM runs WHERE id = 'run1'",
            "UPDATE runs SET state = 'ended', status = 'succeeded' WHERE id = 'run2'",
        )
        for change in edits:
            await edit(store, change)
        await clock.advance(3601)
        await ledger_auditor.run_pass()
        assert observer.count("reservation_stuck") == 2
        assert observer.last("unsettled") == (1,)
        assert (await store.meters(["team/red"], NOW))["team/red"].open == 1
        (row,) = await store.usage(By.TEAM, since=0, until=10**6)
        assert (row.runs, row.microusd) == (1, 1_000_000)

    async def test_ledger_lines_are_kept_for_two_months_at_least(self, store, ledger_auditor, clock):
        await spend(store, "1", 70)
        for days, kept in ((31, 1), (31, 0)):
            await clock.advance(days * 86_400)
            await ledger_auditor.run_pass()
            assert len(await store.newest_spend(10)) == kept
        (row,) = await store.usage(By.TEAM, since=0, until=10**6)
        assert row.microusd == 70

    async def test_audit_continues_after_a_store_failure(self, store, ledger_auditor, clock, caplog):
        running = asyncio.create_task(ledger_auditor.run())
        await until(lambda: clock.sleeping)
        await store.close()
        await clock.advance(61)
        assert any("ledger maintenance interrupted" in record.message for record in caplog.records)
        assert not running.done()
        running.cancel()


class TestPricing:
    def test_settlement_has_the_amount_the_end_and_the_model(self, pricing):
        document = b'{"id":"a","status":"succeeded","model":"acme/toy","metrics":{"predict_time":1.5}}'
        run = live(target="a" * 64)
        made = pricing.settlement(run, Status.SUCCEEDED, document, NOW)
        assert (made.microusd, made.milliseconds, made.target, made.reason) == (
            1_000_000,
            1500,
            "acme/toy",
            "succeeded",
        )

    def test_unreadable_document_still_settles(self, pricing, observer, caplog):
        """Nothing stays reserved because upstream wrote nonsense."""
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

    async def test_learned_estimates_survive_the_process(self, store, observer):
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


async def test_placeholder_predictions_are_charged(store: SQLiteStore) -> None:
    """The end arrived before the create's response: the ledger line names the prediction that there was."""
    await lead(store, "1", reservation=demand())
    await finish(store, "1", settlement=settlement())
    (line,) = await store.newest_spend(1)
    assert line.prediction_id == "p1"
    await store.record_created(live("run1"), prediction("up1", "run1"))
    assert len(await store.newest_spend(5)) == 1


async def test_only_the_node_that_leads_audits(
    store: SQLiteStore, pricing: Pricing, budgets: Budgets, clock: ManualClock, observer: Any
) -> None:
    leads = False
    auditor = LedgerAuditor(store, store, pricing, budgets, clock, observer, money(), is_leader=lambda: leads)
    await spend(store, "1", 10)
    await edit(store, "UPDATE usage_days SET microusd = 99")
    await auditor.start()
    await auditor.run_pass()
    assert observer.of("ledger_drift") == []
    leads = True
    await auditor.start()
    assert observer.of("ledger_drift")[0] > 0
