"""What a run's end means for money, beside its settlement, which is the store's: counted, learned from, warned of."""

import logging

from gateway.domain.ports.clock import Clock
from gateway.domain.records import Run, Source
from gateway.errors import GatewayError
from gateway.money.budget_alerts import Budgets
from gateway.money.limit_queue import LimitQueue
from gateway.money.ports import MoneyObserver, SharedRuns
from gateway.money.pricing import Pricing

logger = logging.getLogger(__name__)


class Accounting:
    """Is told of every end."""

    def __init__(
        self,
        store: SharedRuns,
        pricing: Pricing,
        budgets: Budgets,
        limit_queue: LimitQueue,
        clock: Clock,
        observer: MoneyObserver,
    ) -> None:
        self._store = store
        self._pricing = pricing
        self._budgets = budgets
        self._admission = limit_queue
        self._clock = clock
        self._observer = observer

    async def note_end(self, run: Run) -> None:
        """Take note of a run that has ended and been settled."""
        self._admission.freed(run.team)
        settlement = self._pricing.settlement(run, run.status, run.document, self._clock.now())
        self._pricing.note(run, settlement)
        self._budgets.touched(run.team)
        if run.fingerprint is None and run.provisional is None:
            return
        try:
            sharing = await self._store.predictions_of(run.id)
        except GatewayError as exc:
            # The ledger has it; the metric does not.
            logger.warning("what was saved could not be counted", extra={"run": run.id, "reason": exc.detail})
            return
        for prediction in sharing:
            if prediction.source is Source.JOINED:
                self._observer.saved(prediction.team, "joined", settlement.microusd)
