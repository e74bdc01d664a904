"""Boards: gathered once for all who look, and of a team only what is the team's."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.domain import windows
from gateway.domain.ledger import By, Usage
from gateway.domain.limits import Allowance, Limits
from gateway.domain.quota import Counters
from gateway.domain.records import Kind, Run, RunState, Status
from gateway.domain.teams import Team
from gateway.errors import StoreUnavailable
from gateway.operations.dashboard import REFRESH_SECONDS, DashboardService, Sources
from gateway.operations.ports import DeliveryCounter
from gateway.operations.recent_errors import RecentErrors
from gateway.operations.rules.dashboard_view import MOST_USERS
from gateway.runtime.live import LiveSettings
from gateway.webhooks.rules.deliveries import DeliveryCounts
from tests.support.clock import ManualClock
from tests.support.live import RETENTION, teams_of

LIMITS = Limits(microusd_per_month=1_000)
TEAMS = (
    Team(name="red", scopes=frozenset(), allowance=Allowance(own=LIMITS)),
    Team(name="blue", scopes=frozenset()),
)


class AuditStore:
    """Sums of two teams, and how often they were asked for."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.asked = 0
        self.away = False

    async def usage(
        self, by: By, *, since: int, until: int, team: str | None = None, tag: str = "", limit: int = 10_000
    ) -> list[Usage]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")
        whats: dict[By, Any] = {By.DAY: windows.day_of(self._clock.now()), By.MODEL: "acme/toy"}
        names = [f"u{number:02}" for number in range(MOST_USERS + 5)] if by is By.USER else [whats.get(by)]
        rows = [Usage(team=name, what=what, runs=1, microusd=500) for name in ("red", "blue") for what in names[:limit]]
        return [row for row in rows if team in (None, row.team)]

    async def meters(self, scopes: Sequence[str], now: float) -> dict[str, Counters]:
        return {scope: Counters(month_microusd=500) for scope in scopes}


class Counted:
    """What the metrics would say."""

    def requests_in_progress(self) -> int:
        return 7

    def refusals_by_limit(self) -> dict[tuple[str, str], int]:
        return {("red", "rate"): 2, ("blue", "dollars"): 3}

    def refusals_by_reason(self) -> dict[str, int]:
        return {"NotFound": 9}


class WebhooksFailed:
    """Has dead letters of some teams."""

    def __init__(self, dead_of: dict[str, int]) -> None:
        self.dead_of = dead_of

    async def delivery_counts(self) -> DeliveryCounts:
        return DeliveryCounts(0, sum(self.dead_of.values()), None, {}, self.dead_of)


_: type[DeliveryCounter] = WebhooksFailed


def run(name: str, team: str, at: float) -> Run:
    return Run(
        id=name, kind=Kind.PREDICTION, team=team, key_id="k", target="acme/toy", path="/predictions", request=b"",
        state=RunState.LIVE, status=Status.PROCESSING, leader_id=f"of-{name}", intended_at=at,
    )  # fmt: skip


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def books(clock: ManualClock) -> AuditStore:
    return AuditStore(clock)


@pytest.fixture
def dashboard(books: AuditStore, clock: ManualClock) -> DashboardService:
    recent_errors = RecentErrors(teams_of(*TEAMS), clock, LiveSettings(RETENTION))
    recent_errors.note("red", "create", "no")
    recent_errors.note(None, "create", "who?")
    runs = [run("late", "red", 30.0), run("early", "blue", 10.0), run("middle", "red", 20.0)]
    sources = Sources(
        runs=lambda: runs,
        waiting=lambda team: {None: 5, "red": 3, "blue": 2}[team],
        streams=lambda team: {None: 9, "red": 4, "blue": 5}[team],
    )
    return DashboardService(
        teams_of(*TEAMS), books, Counted(), recent_errors, sources, clock,  # type: ignore[arg-type]
        WebhooksFailed({"red": 2, "blue": 1}), lambda: {"store": "ok", "upstream": "Replicate did not answer in time."},
    )  # fmt: skip


async def test_many_viewers_cost_one_ledger_read(dashboard: DashboardService, books: AuditStore, clock: ManualClock):
    boards = await asyncio.gather(*(dashboard.board(None) for _ in range(50)))
    assert all(each is boards[0] for each in boards)
    assert books.asked == 4
    await clock.advance(REFRESH_SECONDS)
    assert await dashboard.board(None) is not boards[0]
    assert books.asked == 7, "the users are read less often"


async def test_users_who_cost_most_are_a_bounded_number(dashboard: DashboardService):
    """One more than is shown, so that the page knows of it."""
    for whose in (None, "red"):
        users = (await dashboard.board(whose)).users
        assert len(users) == MOST_USERS + 1
        assert whose in (None, *{each.team for each in users})


async def test_operators_see_all_runs_oldest_first(dashboard: DashboardService):
    board = await dashboard.board(None)
    assert [each.prediction for each in board.runs] == ["of-early", "of-middle", "of-late"]
    assert (board.live.requests, board.live.runs, board.live.streams, board.live.waiting) == (7, 3, 9, 5)
    assert [(each.team, each.reason, each.count) for each in board.refusals] == [
        (None, "NotFound", 9),
        ("blue", "Budget used up", 3),
        ("red", "Predictions per minute", 2),
    ]
    assert [each.team for each in board.budgets] == ["red", "blue"]
    assert board.budgets[0].exceeds
    assert len(board.recent_errors) == 2
    assert board.total.microusd == 1_000


async def test_team_sees_only_its_own(dashboard: DashboardService):
    board = await dashboard.board("blue")
    assert [each.prediction for each in board.runs] == ["of-early"]
    assert (board.live.requests, board.live.runs, board.live.streams, board.live.waiting) == (None, 1, 5, 2)
    assert [(each.team, each.reason) for each in board.refusals] == [("blue", "Budget used up")]
    assert [each.team for each in (*board.budgets, *board.teams, *board.targets)] == ["blue"] * 3
    assert board.recent_errors == ()
    assert "'red'" not in str(board)


async def test_failed_store_read_is_repeated(dashboard: DashboardService, books: AuditStore):
    """A failure is not cached."""
    books.away = True
    with pytest.raises(StoreUnavailable):
        await dashboard.board(None)
    books.away = False
    assert (await dashboard.board(None)).total.runs == 2


async def test_failed_webhooks_and_checks_are_on_the_board(dashboard: DashboardService):
    """A team sees its own webhooks, and no checks of the process."""
    board = await dashboard.board(None)
    assert board.failed_webhooks == (("blue", 1), ("red", 2))
    assert board.failed_checks == ("Replicate did not answer in time.",)
    of_red = await dashboard.board("red")
    assert (of_red.failed_webhooks, of_red.failed_checks) == ((("red", 2),), ())
