"""Budgets of teams as they fill: warnings at 80 % and 100 %, once a window, and what the metrics show of them."""

import asyncio
import logging

from gateway.domain import quota, windows
from gateway.domain.limits import Limits, SubjectKind
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver
from gateway.domain.quota import Allowance, LimitKind, LimitStatus
from gateway.domain.teams import Teams
from gateway.errors import GatewayError
from gateway.money.ports import Announcer, Ledger
from gateway.money.rules import refusals
from gateway.money.settings import MoneySettings
from gateway.runtime.live import LiveSettings

logger = logging.getLogger(__name__)

WARNING = "budget.warning"
EXHAUSTED = "budget.exhausted"
"""Types of messages, in the form that Standard Webhooks advise."""
_NEARLY, _FULLY = 80, 100
_PAUSE = 1.0


class Budgets:
    """Watches the budgets of all teams."""

    def __init__(
        self,
        teams: LiveSettings[Teams],
        settings: LiveSettings[MoneySettings],
        ledger: Ledger,
        clock: Clock,
        observer: LimitObserver,
    ) -> None:
        self._teams = teams
        self._settings = settings
        self._announcer: Announcer | None = None
        self._ledger = ledger
        self._clock = clock
        self._observer = observer
        self._touched: dict[str, str | None] = {}
        self._news = asyncio.Event()
        teams.subscribe(self._check_all_soon)

    def _check_all_soon(self, teams: Teams) -> None:
        for team in teams:
            self.touched(team)

    def announce_through(self, announcer: Announcer) -> None:
        """Have teams with an address for it told of warnings, which are logged in any case."""
        self._announcer = announcer

    def touched(self, team: str) -> None:
        """Take note that something was held, released or spent: the team's budgets are to be looked at."""
        self._touched.setdefault(team, None)
        self._news.set()

    def on_budget_exhausted(self, team: str, name: str) -> None:
        """Check a team's budgets soon: the one of this name has refused a create."""
        self._touched[team] = name
        self._news.set()

    async def run(self) -> None:
        """Look at what was touched, for ever; at each team once a second at most."""
        while True:
            await self._news.wait()
            self._news.clear()
            touched, self._touched = self._touched, {}
            for team, refused in touched.items():
                try:
                    await self.check(team, refused=refused)
                except GatewayError as exc:
                    # The bookkeeper looks at all of them every minute.
                    logger.warning("a budget could not be looked at", extra={"team": team, "reason": exc.detail})
            await self._clock.sleep(_PAUSE)

    async def check_all(self) -> None:
        """Look at every team's budgets: corrections and ends of windows come without a word."""
        for team in tuple(self._teams.value):
            await self.check(team)

    async def check(self, team: str, *, refused: str | None = None) -> None:
        """Look at a team's budgets, show them, and warn of what is full.

        `refused` names one that has just kept a create from running: if it is nearly used up, it is used up.
        """
        known = self._teams.value.get(team)
        if known is None:
            return
        limits = known.allowance.own
        now, scope = self._clock.now(), quota.scope(SubjectKind.TEAM, team)
        meter = (await self._ledger.meters([scope], now))[scope]
        self._observer.budget(
            team, "day", limit=limits.microusd_per_day, spent=meter.day_microusd, reserved=meter.held_microusd
        )
        self._observer.budget(
            team, "month", limit=limits.microusd_per_month, spent=meter.month_microusd, reserved=meter.held_microusd
        )
        for standing in quota.standings([_allowance(team, limits)], {scope: meter}, now):
            if standing.sort is LimitKind.DOLLARS:
                await self._warn(team, standing, now, is_in_the_way=standing.name == refused)

    async def _warn(self, team: str, standing: LimitStatus, now: float, *, is_in_the_way: bool) -> None:
        assert standing.window is not None
        began = windows.first_day(standing.window, windows.day_of(now))
        taken = standing.used + standing.held
        is_full = is_in_the_way and taken * 100 >= standing.limit * _NEARLY
        reached = [
            percent
            for percent in (_NEARLY, _FULLY)
            if standing.used * 100 >= standing.limit * percent or (is_full and percent == _FULLY)
        ]
        new = [each for each in reached if await self._ledger.warn_once(team, standing.name, began, each)]
        if not new:
            return
        # Whoever is at 100 % need not hear of 80 % as well.
        percent = max(new)
        logger.warning(
            "a budget is used up" if percent == _FULLY else "a budget is nearly used up",
            extra={"team": team, "budget": standing.name, "percent": percent},
        )
        payload = {"team": team, "percent": percent, "limit": refusals.shown(standing)}
        url = self._settings.value.budget_webhooks.get(team)
        if self._announcer is not None and url is not None:
            await self._announcer.announce(team, url, EXHAUSTED if percent == _FULLY else WARNING, payload)


def _allowance(team: str, limits: Limits) -> Allowance:
    return Allowance(
        of=SubjectKind.TEAM,
        scope=quota.scope(SubjectKind.TEAM, team),
        microusd_per_day=limits.microusd_per_day,
        microusd_per_month=limits.microusd_per_month,
    )
