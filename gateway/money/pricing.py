"""Estimates of runs before they start, settlements after they end, and the cost history that estimates learn from.

Both are computed without I/O, so that the store can write them in the transaction of the create or the end.
"""

import logging

from gateway.domain import documents, ledger
from gateway.domain.ledger import BETWEEN, Settlement
from gateway.domain.money import Amounts
from gateway.domain.ports.observers import LimitObserver
from gateway.domain.records import Run, Status
from gateway.errors import PriceUnknown
from gateway.money.ports import Ledger
from gateway.money.rules import cost_history, estimates, pricing
from gateway.money.rules.cost_history import Recent, Sample
from gateway.money.rules.pricing import Charge, Price, Unpriced
from gateway.money.rules.usage import usage_of
from gateway.money.settings import MoneySettings
from gateway.runtime.live import LiveSettings

logger = logging.getLogger(__name__)

_ENTRIES_LEARNED = 20_000
"""Number of ledger entries read at a start. The newest ones cover the targets in frequent use."""


class Charges:
    """Prices and charges of runs, by the configured price list."""

    def __init__(self, settings: LiveSettings[MoneySettings]) -> None:
        self._settings = settings

    def basis(self, run: Run) -> Price:
        """Return the price that applies to a run, by the current price list."""
        return self._basis(_model_of(run.target, run.document))

    def charge(self, run: Run) -> Charge:
        """Return the itemised charge of a run that has ended, by the current price list."""
        return self._charge(_model_of(run.target, run.document), run.status, run.document)

    def _basis(self, model: str) -> Price:
        prices = self._settings.value.prices
        price = prices.price_of(model)
        if isinstance(price, Unpriced):
            # It was admitted when it had a price, or before `prices.unknown` was set to refuse it.
            return pricing.on_hardware(prices.default_hardware, prices.table)
        return price

    def _charge(self, model: str, status: Status, document: bytes) -> Charge:
        usage = usage_of(document, status)
        return pricing.charge(self._basis(model), usage, charge_failed=self._settings.value.prices.charge_failed)


class Pricing(Charges):
    """Estimates and charges runs by the configured price list."""

    def __init__(self, settings: LiveSettings[MoneySettings], observer: LimitObserver) -> None:
        super().__init__(settings)
        self._observer = observer
        self._recent = Recent()

    @property
    def learned(self) -> int:
        """Number of targets with a cost history."""
        return len(self._recent)

    def price_of(self, target: str) -> Price:
        """Return a target's price. Raise `PriceUnknown` if it has none and the config refuses such targets."""
        price = self._settings.value.prices.price_of(target)
        if isinstance(price, Unpriced):
            raise PriceUnknown(
                f"No price is configured for {target}, and this gateway refuses predictions without a price "
                '(prices.unknown = "refuse"). Ask its operator to add a [[prices.models]] entry.'
            )
        return price

    def estimate(self, target: str, given: bytes) -> Amounts:
        """Return the amounts to reserve for a run of `target` on the input `given`. Raise `PriceUnknown`."""
        price = self.price_of(target)
        typical = self._recent.typical(ledger.model_of(target))
        return estimates.estimate(price, typical, estimates.requested_size(given))

    def settlement(self, run: Run, status: Status, document: bytes, now: float) -> Settlement:
        """Return the final charge of a run that ended with `status` and upstream's `document`."""
        model = _model_of(run.target, document)
        charge = self._charge(model, status, document)
        return Settlement(
            at=now,
            microusd=charge.microusd,
            milliseconds=charge.milliseconds,
            target=model,
            reason=BETWEEN.join((status, *charge.doubts)),
        )

    def note(self, run: Run, settlement: Settlement) -> None:
        """Learn from what was settled, and count it: last, so that a repeat after a failure counts it once."""
        self._learn(run.id, run.status, settlement)
        for doubt in settlement.reason.split(BETWEEN)[1:]:
            logger.warning(
                "charge may differ from Replicate's", extra={"run": run.id, "target": run.target, "reason": doubt}
            )
            self._observer.charge_doubted(doubt)
        self._observer.spent(run.team, settlement.microusd)

    async def load(self, store: Ledger) -> None:
        """Build the cost history from the newest entries of the ledger. Call once, at the start."""
        for entry in await store.newest_spend(_ENTRIES_LEARNED):
            status = entry.reason.partition(BETWEEN)[0]
            if status in set(Status):
                settlement = Settlement(
                    at=entry.at, microusd=entry.microusd, milliseconds=entry.milliseconds, target=entry.target
                )
                self._learn(entry.run_id or "", Status(status), settlement)

    def _learn(self, run_id: str, status: Status, settlement: Settlement) -> None:
        if cost_history.is_representative(status):
            sample = Sample(settlement.at, run_id, settlement.microusd, settlement.milliseconds)
            self._recent.add(settlement.target, sample)


def _model_of(target: str, document: bytes) -> str:
    """Return a run's target as named in usage. Only for a bare version id, upstream's document is read."""
    named = _model_in(document) if "/" not in target.partition(":")[0] else None
    return ledger.model_of(target, named)


def _model_in(document: bytes) -> str | None:
    """Return the model that upstream's document names; `None` if it names none or cannot be read."""
    try:
        return documents.stored_snapshot(document).model
    except ValueError:
        return None
