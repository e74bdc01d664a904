"""Audit the ledger: compare its sums with its entries, release stuck reservations, delete old entries.

The work is done in small steps, so that it delays no request. Sums cannot drift and reservations cannot get stuck
unless the gateway has a defect, because each changes in the same transaction as what it belongs to. The audit detects,
repairs and reports such defects.
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
_ENTRIES_PER_STEP = 1000
_ENTRIES_PER_STEP_AT_START = 10_000
_PAUSE = 0.05
_HOUR = 3600.0
_MAX_SUMS_LOGGED = 20
_PASSES_BETWEEN_AUDITS = 10


class LedgerAuditor:
    """Maintains the ledger: one pass a minute."""

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
        is_leader: Callable[[], bool] = lambda: True,
    ) -> None:
        """Take `is_leader`: of several nodes, only that one audits."""
        self._is_leader = is_leader
        self._ledger = ledger
        self._runs = runs
        self._pricing = pricing
        self._budgets = budgets
        self._clock = clock
        self._observer = observer
        self._settings = settings
        self._every_seconds = every_seconds
        self._passes = 0
        self._audited = 0

    async def start(self) -> None:
        """Check the counters against the reservations, and today's sums against the entries. Call before serving.

        `run` checks the earlier days of the month next, in small steps: they can have a million entries.
        """
        if self._is_leader():
            wrong = await self._ledger.recount_meters()
            wrong += await self._audit(windows.day_of(self._clock.now()), _ENTRIES_PER_STEP_AT_START, pause=0.0)
            self._report(wrong)
        await self._budgets.check_all()

    async def run(self) -> None:
        """Maintain the ledger until cancelled. When the store fails, the next pass tries again."""
        if self._is_leader():
            await self._log_failure(self.audit_month)
        while True:
            await self._clock.sleep(self._every_seconds)
            await self._log_failure(self.run_pass)

    async def _log_failure(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except GatewayError as exc:
            logger.warning("ledger maintenance interrupted", extra={"reason": exc.detail})

    async def run_pass(self) -> None:
        """Release stuck reservations, check budgets and delete old entries; audit the sums in every tenth pass."""
        if not self._is_leader():
            await self._budgets.check_all()
            return
        await self._release_stuck()
        await self._budgets.check_all()
        await self._prune()
        if self._passes % _PASSES_BETWEEN_AUDITS == 0:
            await self.audit()
        self._passes += 1

    async def audit_month(self) -> int:
        """Compare the sums of every day of the month with their entries; return how many were wrong."""
        today = windows.day_of(self._clock.now())
        wrong = 0
        for day in range(windows.first_day(Window.MONTH, today), today + 1):
            wrong += await self._audit(day, _ENTRIES_PER_STEP, pause=_PAUSE)
        self._report(wrong)
        return wrong

    async def audit(self) -> int:
        """Compare the sums of today, yesterday and one more day of the month with their entries.

        Successive calls go through the days of the month. Return how many sums were wrong.
        """
        today = windows.day_of(self._clock.now())
        month = windows.first_day(Window.MONTH, today)
        self._audited = self._audited + 1 if month <= self._audited + 1 <= today else month
        wrong = await self._ledger.recount_meters()
        for day in {today, max(month, today - 1), self._audited}:
            wrong += await self._audit(day, _ENTRIES_PER_STEP, pause=_PAUSE)
        self._report(wrong)
        return wrong

    async def _audit(self, day: int, entries: int, *, pause: float) -> int:
        tally, after = Tally(), 0
        while True:
            audited = await self._ledger.audit_day(day, after, entries)
            tally.add(audited)
            if audited.stored is not None:
                break
            after = audited.last
            await asyncio.sleep(pause)
        drifted = tally.drift(audited.stored)
        if day == windows.day_of(self._clock.now()):
            self._observer.tag_values(audited.stored.most_values)
        if drifted:
            logger.error(
                "sums differ from the ledger; rebuilding them",
                extra={"day": windows.text_of(day), "count": len(drifted), "sums": drifted[:_MAX_SUMS_LOGGED]},
            )
            await self._ledger.rebuild_day(day)
        return len(drifted)

    def _report(self, wrong: int) -> None:
        self._observer.ledger_drift(wrong)
        if wrong:
            logger.error("ledger sums were wrong", extra={"count": wrong})

    async def _release_stuck(self) -> None:
        """Settle or release the reservations of runs that have ended or no longer exist."""
        now = self._clock.now()
        while stuck := await self._ledger.stuck_reservations(_STEP):
            released = 0
            for held in stuck:
                run = await self._runs.run(held.run_id)
                settlement = (
                    None if run is None else self._pricing.settlement(run, run.status, run.document, self._clock.now())
                )
                if await self._ledger.free_reservation(held.run_id, settlement):
                    released += 1
                    logger.error("stuck reservation released", extra={"run": held.run_id, "team": held.team})
                    self._observer.reservation_stuck()
            if not released:
                break
            await asyncio.sleep(_PAUSE)
        self._observer.unsettled(await self._ledger.unsettled(now - _HOUR))

    async def _prune(self) -> None:
        """Delete entries older than `retain_days`. Entries of this and the previous month stay, for the audit."""
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
