"""Budget alerts, and the budget metrics of teams.

An alert is given at each threshold of a budget, once per budget window: over all nodes, and whatever fails. Budgets of
a team are checked when its money changes and every minute; those of its keys, users and cost tags when a run of theirs
ends.
"""

import asyncio
import logging

import msgspec
from msgspec.structs import replace

from gateway.domain import quota, windows
from gateway.domain.ledger import BudgetWarning
from gateway.domain.limits import Limits, SubjectKind
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver
from gateway.domain.quota import Counters, LimitKind, LimitStatus, RunLimits
from gateway.domain.tags import NONE
from gateway.domain.teams import Team, Teams
from gateway.errors import GatewayError
from gateway.money.limit_queue import run_limits_of
from gateway.money.ports import Announcer, KeyOwners, Ledger
from gateway.money.rules import alerts
from gateway.money.rules.alerts import FULL, Alert
from gateway.money.settings import AlertSettings, MoneySettings
from gateway.runtime.live import LiveSettings

logger = logging.getLogger(__name__)

_NEARLY = 80
_PAUSE = 1.0
_WATCHED = (SubjectKind.KEY, SubjectKind.USER, SubjectKind.TAG)
_NO_ALERTS = AlertSettings()


class Touched(msgspec.Struct):
    """What to check of a team."""

    spenders: set[tuple[str, str | None, str]] = msgspec.field(default_factory=set)
    """Keys, users and cost tags whose runs have ended."""
    refused: dict[str, RunLimits] = msgspec.field(default_factory=dict)
    """Limits of which a budget has refused a create, by scope."""
    names: set[tuple[str, str]] = msgspec.field(default_factory=set)
    """Those budgets, by scope and name."""


class Budgets:
    """Checks budgets when spending changes."""

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
        self._owners: KeyOwners | None = None
        self._ledger = ledger
        self._clock = clock
        self._observer = observer
        self._touched: dict[str, Touched] = {}
        self._changed = asyncio.Event()
        teams.subscribe(self._check_all_soon)

    def _check_all_soon(self, teams: Teams) -> None:
        for team in teams:
            self.touched(team)

    def announce_through(self, announcer: Announcer) -> None:
        """Send alerts by webhook too, to teams with a webhook URL for them. Alerts are logged in any case."""
        self._announcer = announcer

    def find_limits_through(self, owners: KeyOwners) -> None:
        """Check the budgets of keys, users and cost tags too."""
        self._owners = owners

    def touched(self, team: str, key_id: str | None = None, user: str | None = None, tagged: str = NONE) -> None:
        """Schedule a check of a team's budgets, and of those of a key, a user and cost tags.

        Call when what they spent has changed.
        """
        touched = self._of(team)
        if key_id is not None:
            touched.spenders.add((key_id, user, tagged))

    def on_budget_exhausted(self, team: str, limits: RunLimits, name: str) -> None:
        """Schedule a check of the budgets of a team, key, user or tag, of which `name` has refused a create."""
        touched = self._of(team)
        touched.refused[limits.scope] = limits
        touched.names.add((limits.scope, name))

    def _of(self, team: str) -> Touched:
        self._changed.set()
        return self._touched.setdefault(team, Touched())

    async def run(self) -> None:
        """Run scheduled checks until cancelled, at most one per team and second."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            touched, self._touched = self._touched, {}
            for team, what in touched.items():
                try:
                    await self.check(team, what)
                except GatewayError as exc:
                    # No retry here: the ledger auditor checks the budgets of all teams every minute, and the end of
                    # the next run those of its key, user and tags.
                    logger.warning("budget check failed", extra={"team": team, "reason": exc.detail})
            await self._clock.sleep(_PAUSE)

    async def check_all(self) -> None:
        """Check every team's budgets. Finds changes that schedule no check: corrections and new budget windows."""
        for team in tuple(self._teams.value):
            await self.check(team)

    async def check(self, name: str, touched: Touched | None = None) -> None:
        """Update the metrics of a team's budgets, and alert where a threshold was reached.

        Check those of its keys, users and cost tags that are `touched` too.

        A budget that has just refused a create counts as used up from 80 % on, because what is left is too little for
        that create.
        """
        team = self._teams.value.get(name)
        if team is None:
            return
        now, touched = self._clock.now(), touched or Touched()
        limits = await self._limits(team, touched)
        meters = await self._ledger.meters([each.scope for each in limits], now)
        self._observe(team, meters[quota.scope(SubjectKind.TEAM, name)])
        for status in quota.statuses(limits, meters, now):
            if status.kind is LimitKind.DOLLARS:
                await self._alert(name, status, now, has_refused=(status.scope, status.name) in touched.names)

    async def _limits(self, team: Team, touched: Touched) -> list[RunLimits]:
        """Return what to check: the limits of the team first, then of keys, users and tags that have a budget."""
        found = {quota.scope(SubjectKind.TEAM, team.name): _of_team(team.name, team.allowance.own)} | touched.refused
        for key_id, user, tagged in touched.spenders:
            owner = None if self._owners is None else await self._owners.owner(team.name, key_id)
            if owner is not None:
                found |= {each.scope: each for each in run_limits_of(owner, user, tagged=tagged) if _has_budget(each)}
        return list(found.values())

    def _observe(self, team: Team, meter: Counters) -> None:
        own = team.allowance.own
        for window, limit, spent in (
            ("day", own.microusd_per_day, meter.day_microusd),
            ("month", own.microusd_per_month, meter.month_microusd),
        ):
            self._observer.budget(team.name, window, limit=limit, spent=spent, reserved=meter.held_microusd)

    async def _alert(self, team: str, status: LimitStatus, now: float, *, has_refused: bool) -> None:
        assert status.window is not None
        settings = self._settings.value.alerts.get(team, _NO_ALERTS)
        is_full = has_refused and (status.used + status.held) * 100 >= status.limit * _NEARLY
        reached = [
            percent
            for percent in settings.thresholds
            if status.used * 100 >= status.limit * percent or (is_full and percent == FULL)
        ]
        if not reached:
            return
        # One alert is enough when several thresholds are reached at once.
        percent, day = max(reached), windows.first_day(status.window, windows.day_of(now))
        name = status.name if status.of is SubjectKind.TEAM else f"{status.scope} {status.name}"
        if await self._ledger.warned(team, name, day) >= percent:
            return
        warning = BudgetWarning(team, name, day, percent)
        if self._announcer is not None and settings.url is not None:
            alert = Alert(team=team, percent=percent, status=status, at=now, has_refused=has_refused)
            if (key_id := alert.owner.get("key")) is not None:
                alert = replace(alert, key_name=await self._name_of(team, key_id))
            message = alerts.body(alert, settings.form)
            is_first = await self._announcer.announce(warning, settings.url, message)
        else:
            is_first = await self._ledger.warn_once(warning)
        if is_first:
            reached_text = "budget nearly used up" if percent >= _NEARLY else "budget threshold reached"
            logger.warning(
                "budget used up" if percent >= FULL else reached_text,
                extra={"team": team, "budget": name, "percent": percent},
            )

    async def _name_of(self, team: str, key_id: str) -> str | None:
        owner = None if self._owners is None else await self._owners.owner(team, key_id)
        return None if owner is None else owner.key_name or None


def _of_team(team: str, limits: Limits) -> RunLimits:
    return RunLimits(
        of=SubjectKind.TEAM,
        scope=quota.scope(SubjectKind.TEAM, team),
        microusd_per_day=limits.microusd_per_day,
        microusd_per_month=limits.microusd_per_month,
    )


def _has_budget(limits: RunLimits) -> bool:
    return limits.of in _WATCHED and (limits.microusd_per_day, limits.microusd_per_month) != (None, None)
