"""The bookkeeper: holds the sums to the ledger's lines, frees what is stuck, and forgets what has had its time.

All of it in steps so small that no request notices. That sums drift apart, or a reservation is stuck, should never
happen: each changes in the step of what it belongs to. It is looked for all the same, mended, and reported.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from gateway.domain import windows
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import LimitObserver
from gateway.domain.windows import Window
from gateway.errors import GatewayError
from gateway.money.budget_alerts import Budgets
from gateway.money.ports import Ledger, Runs
from gateway.money.pricing import Pricing
from gateway.money.rules.audit import Tally
from gateway.money.settings import MoneySettings
from gateway.runtime.live import LiveSettings

logger = logging.getLogger(__name__)

_STEP = 50
_LINES_AT_ONCE = 1000
_LINES_AT_A_START = 10_000
_PAUSE = 0.05
_HOUR = 3600.0
_TOLD_AT_MOST = 20
_TURNS_BETWEEN_AUDITS = 10


class LedgerAuditor:
    """Looks after the ledger, once a minute."""

    def __init__(
        self,
        ledger: Ledger,
        runs: Runs,
        pricing: Pricing,
        budgets: Budgets,
        clock: Clock,
        observer: LimitObserver,
        settings: LiveSettings[MoneySettings],
        *,
        every_seconds: float = 60.0,
    ) -> None:
        self._ledger = ledger
        self._runs = runs
        self._pricing = pricing
        self._budgets = budgets
        self._clock = clock
        self._observer = observer
        self._settings = settings
        self._every_seconds = every_seconds
        self._turns = 0
        self._audited = 0

    async def start(self) -> None:
        """Before anything is admitted: hold what is held, and what was spent today, to reservations and lines.

        The earlier days of the month, of which there may be a million lines, follow at once, in small steps (`run`).
        """
        wrong = await self._ledger.recount_meters()
        wrong += await self._audit(windows.day_of(self._clock.now()), _LINES_AT_A_START, pause=0.0)
        self._report(wrong)
        await self._budgets.check_all()

    async def run(self) -> None:
        """Look after the ledger for ever. A store that is away is tried again at the next turn."""
        await self._patiently(self.audit_month)
        while True:
            await self._clock.sleep(self._every_seconds)
            await self._patiently(self.turn)

    async def _patiently(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except GatewayError as exc:
            logger.warning("the bookkeeper could not finish", extra={"reason": exc.detail})

    async def turn(self) -> None:
        """Do once all that is due."""
        await self._sweep()
        await self._budgets.check_all()
        await self._prune()
        if self._turns % _TURNS_BETWEEN_AUDITS == 0:
            await self.audit()
        self._turns += 1

    async def audit_month(self) -> int:
        """Compare the sums of every day of the month with their lines."""
        today = windows.day_of(self._clock.now())
        wrong = 0
        for day in range(windows.first_day(Window.MONTH, today), today + 1):
            wrong += await self._audit(day, _LINES_AT_ONCE, pause=_PAUSE)
        self._report(wrong)
        return wrong

    async def audit(self) -> int:
        """Compare the sums of today, of yesterday, and of one more day of the month, with their lines."""
        today = windows.day_of(self._clock.now())
        month = windows.first_day(Window.MONTH, today)
        self._audited = self._audited + 1 if month <= self._audited + 1 <= today else month
        wrong = await self._ledger.recount_meters()
        for day in {today, max(month, today - 1), self._audited}:
            wrong += await self._audit(day, _LINES_AT_ONCE, pause=_PAUSE)
        self._report(wrong)
        return wrong

    async def _audit(self, day: int, lines: int, *, pause: float) -> int:
        tally, after = Tally(), 0
        while True:
            audited = await self._ledger.audit_day(day, after, lines)
            tally.add(audited)
            if audited.kept is not None:
                break
            after = audited.last
            await asyncio.sleep(pause)
        drifted = tally.drift(audited.kept)
        if drifted:
            logger.error(
                "sums differ from the ledger and are made anew",
                extra={"day": windows.text_of(day), "count": len(drifted), "sums": drifted[:_TOLD_AT_MOST]},
            )
            await self._ledger.rebuild_day(day)
        return len(drifted)

    def _report(self, wrong: int) -> None:
        self._observer.ledger_drift(wrong)
        if wrong:
            logger.error("the ledger had drifted", extra={"count": wrong})

    async def _sweep(self) -> None:
        """Free what is held for runs that have ended or are gone."""
        now = self._clock.now()
        while stuck := await self._ledger.stuck_reservations(_STEP):
            freed = 0
            for held in stuck:
                run = await self._runs.run(held.run_id)
                settlement = (
                    None if run is None else self._pricing.settlement(run, run.status, run.document, self._clock.now())
                )
                if await self._ledger.free_reservation(held.run_id, settlement):
                    freed += 1
                    logger.error("a stuck reservation was freed", extra={"run": held.run_id, "team": held.team})
                    self._observer.reservation_stuck()
            if not freed:
                break
            await asyncio.sleep(_PAUSE)
        self._observer.unsettled(await self._ledger.unsettled(now - _HOUR))

    async def _prune(self) -> None:
        """Forget lines past their time. Those of the month under way, and of the one before, are kept for the audit."""
        now = self._clock.now()
        today = windows.day_of(now)
        spent_before = windows.month_before(today)
        lines_before = min(spent_before, windows.day_of(now - self._settings.value.retain_days * 86_400))
        went = _STEP
        while went == _STEP:
            went = await self._ledger.prune_ledger(
                lines_before=lines_before, spent_before=spent_before, now=now, limit=_STEP
            )
            await asyncio.sleep(_PAUSE)
