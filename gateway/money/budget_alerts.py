"""Budget warnings and budget metrics of teams. A warning is given at 80 % and at 100 %, once per budget window."""

import asyncio
import logging

from gateway.domain import quota, windows
from gateway.domain.limits import Limits, SubjectKind
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver
from gateway.domain.quota import LimitKind, LimitStatus, RunLimits
from gateway.domain.teams import Teams
from gateway.errors import GatewayError
from gateway.money.ports import Announcer, Ledger
from gateway.money.rules import refusals
from gateway.money.settings import MoneySettings
from gateway.runtime.live import LiveSettings

logger = logging.getLogger(__name__)

WARNING = "budget.warning"
EXHAUSTED = "budget.exhausted"
"""Message types, in the form that Standard Webhooks recommend."""
_NEARLY, _FULLY = 80, 100
_PAUSE = 1.0


class Budgets:
    """Checks the budgets of all teams when their spending changes."""

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
        self._changed = asyncio.Event()
        self._warning = asyncio.Lock()
        self._unrecorded: set[tuple[str, str, int, int]] = set()
        """Warnings that were given and are not recorded yet: team, budget, first day of its window, percentage."""
        teams.subscribe(self._check_all_soon)

    def _check_all_soon(self, teams: Teams) -> None:
        for team in teams:
            self.touched(team)

    def announce_through(self, announcer: Announcer) -> None:
        """Send warnings by webhook too, to teams with a webhook URL for them. Warnings are logged in any case."""
        self._announcer = announcer

    def touched(self, team: str) -> None:
        """Schedule a check of a team's budgets. Call after money was reserved, released or spent."""
        self._touched.setdefault(team, None)
        self._changed.set()

    def on_budget_exhausted(self, team: str, name: str) -> None:
        """Schedule a check of a team's budgets, of which `name` has refused a create."""
        self._touched[team] = name
        self._changed.set()

    async def run(self) -> None:
        """Run scheduled checks until cancelled, at most one per team and second."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            touched, self._touched = self._touched, {}
            for team, refused in touched.items():
                try:
                    await self.check(team, refused=refused)
                except GatewayError as exc:
                    # No retry here: the ledger auditor checks all budgets every minute.
                    logger.warning("budget check failed", extra={"team": team, "reason": exc.detail})
            await self._clock.sleep(_PAUSE)

    async def check_all(self) -> None:
        """Check every team's budgets. Finds changes that schedule no check: corrections and new budget windows."""
        for team in tuple(self._teams.value):
            await self.check(team)

    async def check(self, team: str, *, refused: str | None = None) -> None:
        """Update the metrics of a team's budgets and warn about those at 80 % or 100 %.

        `refused` names a budget that has just refused a create. From 80 % on it counts as used up, because what is left
        is too little for that create.
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
        for status in quota.statuses([_allowance(team, limits)], {scope: meter}, now):
            if status.kind is LimitKind.DOLLARS:
                await self._warn(team, status, now, has_refused=status.name == refused)

    async def _warn(self, team: str, status: LimitStatus, now: float, *, has_refused: bool) -> None:
        assert status.window is not None
        window_start = windows.first_day(status.window, windows.day_of(now))
        taken = status.used + status.held
        is_full = has_refused and taken * 100 >= status.limit * _NEARLY
        reached = [
            percent
            for percent in (_NEARLY, _FULLY)
            if status.used * 100 >= status.limit * percent or (is_full and percent == _FULLY)
        ]
        if not reached:
            return
        # One warning is enough when 80 % and 100 % are reached at once.
        percent = max(reached)
        # The auditor can check at the same time.
        async with self._warning:
            if await self._ledger.warned(team, status.name, window_start) >= percent:
                return
            # Recorded only when the webhook is queued: else a failure in between would lose the webhook.
            await self._announce(team, status, window_start, percent)
            await self._ledger.warn_once(team, status.name, window_start, percent)
            self._unrecorded.discard((team, status.name, window_start, percent))

    async def _announce(self, team: str, status: LimitStatus, window_start: int, percent: int) -> None:
        warning = (team, status.name, window_start, percent)
        if warning in self._unrecorded:
            return
        payload = {"team": team, "percent": percent, "limit": refusals.shown(status)}
        url = self._settings.value.budget_webhooks.get(team)
        if self._announcer is not None and url is not None:
            await self._announcer.announce(team, url, EXHAUSTED if percent == _FULLY else WARNING, payload)
        self._unrecorded.add(warning)
        logger.warning(
            "budget used up" if percent == _FULLY else "budget nearly used up",
            extra={"team": team, "budget": status.name, "percent": percent},
        )


def _allowance(team: str, limits: Limits) -> RunLimits:
    return RunLimits(
        of=SubjectKind.TEAM,
        scope=quota.scope(SubjectKind.TEAM, team),
        microusd_per_day=limits.microusd_per_day,
        microusd_per_month=limits.microusd_per_month,
    )
