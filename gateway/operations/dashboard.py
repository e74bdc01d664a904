"""Collect the data of the console's overview: usage from the ledger's sums, as in `gateway usage`, and live state from
services.

The data of a board is collected on request and cached for a second, so the cost does not depend on the number of
viewers.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import msgspec
from cachetools import TTLCache

from gateway.domain import quota, windows
from gateway.domain.ledger import By, Usage
from gateway.domain.limits import SubjectKind
from gateway.domain.ports.clock import Clock
from gateway.domain.records import Run
from gateway.domain.teams import Teams
from gateway.domain.windows import Window
from gateway.money.ports import Ledger
from gateway.money.rules import projection, reports
from gateway.operations.health import OK
from gateway.operations.ports import DeliveryCounter, Figures
from gateway.operations.recent_errors import RecentErrors
from gateway.operations.rules import dashboard_view as board
from gateway.operations.rules import overview_rows
from gateway.operations.rules.dashboard_view import MOST_ROWS, MOST_USERS, ActiveRun, Board, Budget, Live, Refusal
from gateway.runtime.live import LiveSettings

REFRESH_SECONDS = 1.0
_MOST_BOARDS = 1000
_USERS_SECONDS = 10.0
_MOST_ERRORS = 20
_MOST_FOLDED = 1000


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Functions that return live state. A team of `None` means all teams."""

    runs: Callable[[], Iterable[Run]]
    waiting: Callable[[str | None], int]
    streams: Callable[[str | None], int]


class DashboardService:
    """Collects boards."""

    def __init__(
        self,
        teams: LiveSettings[Teams],
        ledger: Ledger,
        figures: Figures,
        recent_errors: RecentErrors,
        sources: Sources,
        clock: Clock,
        deliveries: DeliveryCounter,
        checks: Callable[[], Mapping[str, str]],
    ) -> None:
        self._teams = teams
        self._ledger = ledger
        self._figures = figures
        self._recent_errors = recent_errors
        self._sources = sources
        self._clock = clock
        self._deliveries = deliveries
        self._checks = checks
        self._boards: TTLCache[str | None, Board] = TTLCache(_MOST_BOARDS, REFRESH_SECONDS, timer=clock.monotonic)
        self._top_users: TTLCache[str | None, tuple[Usage, ...]] = TTLCache(
            _MOST_BOARDS, _USERS_SECONDS, timer=clock.monotonic
        )
        self._gathering = asyncio.Lock()

    async def board(self, whose: str | None) -> Board:
        """Return the board of a team, or (`None`) of all. Raise `StoreUnavailable`."""
        async with self._gathering:
            found = self._boards.get(whose)
            if found is None:
                found = self._boards[whose] = await self._gather(whose)
            return found

    async def _gather(self, whose: str | None) -> Board:
        now = self._clock.now()
        until = windows.day_of(now)
        since = windows.first_day(Window.MONTH, until)
        asked = min(since, projection.first_day(now))
        by_day = await self._ledger.usage(By.DAY, since=asked, until=until, team=whose)
        by_model = await self._ledger.usage(By.MODEL, since=since, until=until, team=whose)
        by_team = await self._ledger.usage(By.TEAM, since=since, until=until, team=whose)
        runs = [run for run in self._sources.runs() if whose in (None, run.team)]
        return Board(
            whose=whose,
            at=now,
            since=since,
            until=until,
            total=reports.total_of(by_team),
            days=board.by_days(by_day, since, until),
            teams=board.by_cost(by_team),
            targets=board.by_cost(by_model),
            users=await self._users(whose, since, until),
            budgets=await self._budgets(whose, by_day, now),
            failed_webhooks=await self._failed_webhooks(whose),
            failed_checks=self._failed_checks() if whose is None else (),
            live=Live(
                requests=self._figures.requests_in_progress() if whose is None else None,
                runs=len(runs),
                streams=self._sources.streams(whose),
                waiting=self._sources.waiting(whose),
            ),
            runs=_active(runs),
            recent_errors=overview_rows.folded(self._recent_errors.newest(whose, _MOST_FOLDED))[:_MOST_ERRORS],
            refusals=self._refusals(whose),
            refused_origins=self._recent_errors.refused_origins.newest(MOST_ROWS) if whose is None else (),
        )

    async def _users(self, whose: str | None, since: int, until: int) -> tuple[Usage, ...]:
        """Return the users who cost most. Their sums are of more rows than the others, so they are read less often."""
        found = self._top_users.get(whose)
        if found is None:
            most = MOST_USERS + 1
            rows = await self._ledger.usage(By.USER, since=since, until=until, team=whose, limit=most)
            found = self._top_users[whose] = board.by_cost(rows)[:most]
        return found

    async def _failed_webhooks(self, whose: str | None) -> tuple[tuple[str, int], ...]:
        dead = (await self._deliveries.delivery_counts()).dead_of
        return tuple(sorted((team, count) for team, count in dead.items() if whose in (None, team)))

    def _failed_checks(self) -> tuple[str, ...]:
        return tuple(result for result in self._checks().values() if result != OK)

    async def _budgets(self, whose: str | None, by_day: Iterable[Usage], now: float) -> tuple[Budget, ...]:
        # Taken once: a reload may take a team out while the ledger is asked.
        teams = self._teams.value
        names = [name for name in teams if whose in (None, name)]
        scopes = {name: quota.scope(SubjectKind.TEAM, name) for name in names}
        meters = await self._ledger.meters(list(scopes.values()), now)
        spent: defaultdict[str, dict[int, int]] = defaultdict(dict)
        for row in by_day:
            if isinstance(row.what, int):
                spent[row.team][row.what] = row.microusd
        return tuple(
            board.budget(name, teams[name].allowance.own, meters[scopes[name]], spent[name], now) for name in names
        )

    def _refusals(self, whose: str | None) -> tuple[Refusal, ...]:
        by_limit = {key: count for key, count in self._figures.refusals_by_limit().items() if whose in (None, key[0])}
        by_error = self._figures.refusals_by_reason() if whose is None else {}
        return tuple(overview_rows.refusals(by_limit, by_error)[:MOST_ROWS])


def _active(runs: Iterable[Run]) -> tuple[ActiveRun, ...]:
    """Return the runs that have been in progress longest: these are the interesting ones."""
    oldest = sorted(runs, key=lambda run: run.intended_at)[:MOST_ROWS]
    return tuple(
        ActiveRun(
            team=run.team,
            prediction=run.leader_id,
            target=run.target,
            status=run.status,
            since=run.intended_at,
        )
        for run in oldest
    )
