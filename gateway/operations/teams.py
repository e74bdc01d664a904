"""The teams of the config, with what they have spent and their limits as used, for operators."""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.domain import quota, windows
from gateway.domain.ledger import By
from gateway.domain.ports.clock import Clock
from gateway.domain.quota import RunLimits
from gateway.domain.teams import Team, Teams
from gateway.domain.windows import Window
from gateway.money.limit_queue import run_limits_of_team
from gateway.money.ports import Ledger
from gateway.money.rules import refusals
from gateway.runtime.live import LiveSettings


class TeamRow(msgspec.Struct, frozen=True, kw_only=True):
    """A team."""

    name: str
    scopes: list[str]
    models: list[str]
    origins: list[str]
    spend_day_microusd: int
    """What it spent today, in millionths of a dollar. Days are UTC."""
    spend_month_microusd: int
    limits: list[dict[str, Any]]
    """Its limits on predictions and its budgets, as in `GET /gateway/limits`. Request rates are counted in memory."""


class TeamList(msgspec.Struct, frozen=True):
    """Every team, in the config's order."""

    results: list[TeamRow]
    next: None = None
    """There is one page."""


class TeamService:
    """Reads the state of teams."""

    def __init__(self, teams: LiveSettings[Teams], ledger: Ledger, clock: Clock) -> None:
        self._teams = teams
        self._ledger = ledger
        self._clock = clock

    async def list(self) -> TeamList:
        """Return all teams."""
        teams, now = self._teams.value, self._clock.now()
        today = windows.day_of(now)
        allowances = {name: run_limits_of_team(team) for name, team in teams.items()}
        scopes = [each.scope for each in allowances.values() if each is not None]
        meters = await self._ledger.meters(scopes, now) if scopes else {}
        of_day = await self._spent(today, today)
        of_month = await self._spent(windows.first_day(Window.MONTH, today), today)
        return TeamList(
            [
                _row(team, allowances[name], meters, now, of_day.get(name, 0), of_month.get(name, 0))
                for name, team in teams.items()
            ]
        )

    async def _spent(self, since: int, until: int) -> Mapping[str, int]:
        return {row.team: row.microusd for row in await self._ledger.usage(By.TEAM, since=since, until=until)}


def _row(
    team: Team, allowance: RunLimits | None, meters: Mapping[str, quota.Counters], now: float, day: int, month: int
) -> TeamRow:
    limits = () if allowance is None else quota.statuses([allowance], meters, now)
    return TeamRow(
        name=team.name,
        scopes=sorted(team.scopes),
        models=list(team.models),
        origins=list(team.origins),
        spend_day_microusd=day,
        spend_month_microusd=month,
        limits=[refusals.shown(status) for status in limits],
    )
