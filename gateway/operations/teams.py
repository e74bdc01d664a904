"""The teams of the config, with what they have spent and their limits as used, for operators."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.domain import quota, windows
from gateway.domain.ledger import By
from gateway.domain.limits import Allowance
from gateway.domain.ports.clock import Clock
from gateway.domain.quota import RunLimits
from gateway.domain.teams import Team, Teams
from gateway.domain.windows import Window
from gateway.money.limit_queue import run_limits_of_key, run_limits_of_tags, run_limits_of_team
from gateway.money.ports import Ledger
from gateway.money.rules import refusals
from gateway.operations.rules import limit_rows, tag_limits
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
    """Its limits on predictions and its budgets, as in `GET /gateway/limits`. Request rates are counted in memory.

    Those of cost tags follow: of the values that the config names, and of those with the highest cost this month.
    """


class TeamList(msgspec.Struct, frozen=True):
    """Every team, in the config's order."""

    results: list[TeamRow]
    next: None = None
    """There is one page."""


class LimitedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A valid key with limits."""

    id: str
    name: str
    team: str
    allowance: Allowance


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
        since = windows.first_day(Window.MONTH, today)
        allowances = {name: await self._limits(team, since, today) for name, team in teams.items()}
        scopes = [each.scope for of_team in allowances.values() for each in of_team]
        meters = await self._ledger.meters(scopes, now) if scopes else {}
        of_day = await self._spent(today, today)
        of_month = await self._spent(since, today)
        return TeamList(
            [
                _row(team, allowances[name], meters, now, of_day.get(name, 0), of_month.get(name, 0))
                for name, team in teams.items()
            ]
        )

    async def further_limits(self, keys: Sequence[LimitedKey]) -> Mapping[str, Sequence[Mapping[str, Any]]]:
        """Return what `list` leaves out, by team: request rates, limits of each user and address, and those of keys."""
        teams, now = self._teams.value, self._clock.now()
        found = {name: limit_rows.stated(team.allowance, "team") for name, team in teams.items()}
        limits = {key.id: run_limits_of_key(key.id, key.allowance.own) for key in keys}
        scopes = [each.scope for each in limits.values() if each is not None]
        meters = await self._ledger.meters(scopes, now) if scopes else {}
        for key in keys:
            if key.team in found:
                of, counted = f"key {key.name}", limits[key.id]
                statuses = () if counted is None else quota.statuses([counted], meters, now)
                found[key.team] += [refusals.shown(status) | {"of": of} for status in statuses]
                found[key.team] += limit_rows.stated(key.allowance, of)
        return found

    async def _limits(self, team: Team, since: int, until: int) -> Sequence[RunLimits]:
        own = run_limits_of_team(team)
        values = tag_limits.named(team.per_tag)
        for tag in tag_limits.of_every_value(team.per_tag):
            rows = await self._ledger.usage(
                By.TAG, since=since, until=until, team=team.name, tag=tag, limit=tag_limits.MOST_LISTED
            )
            values += tag_limits.listed(tag, [row.what for row in rows])
        of_tags = (each for tagged in dict.fromkeys(values) for each in run_limits_of_tags(team, tagged))
        return [*(() if own is None else (own,)), *of_tags]

    async def _spent(self, since: int, until: int) -> Mapping[str, int]:
        return {row.team: row.microusd for row in await self._ledger.usage(By.TEAM, since=since, until=until)}


def _row(
    team: Team, allowances: Sequence[RunLimits], meters: Mapping[str, quota.Counters], now: float, day: int, month: int
) -> TeamRow:
    return TeamRow(
        name=team.name,
        scopes=sorted(team.scopes),
        models=list(team.models),
        origins=list(team.origins),
        spend_day_microusd=day,
        spend_month_microusd=month,
        limits=[refusals.shown(status) for status in quota.statuses(allowances, meters, now)],
    )
