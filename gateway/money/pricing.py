"""What runs cost, before and after: estimates that are held, settlements that are entered, and what is learned of both.

Both are worked out without asking anybody, so that they can go into the store's step with what they belong to.
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

_LEARNED_LINES = 20_000
"""How many lines of the ledger are read at a start: what the busiest targets come to stands in the last of them."""


class Pricing:
    """Estimates and charges by one list of prices."""

    def __init__(self, settings: LiveSettings[MoneySettings], observer: LimitObserver) -> None:
        self._settings = settings
        self._observer = observer
        self._recent = Recent()

    @property
    def learned(self) -> int:
        """Of how many targets the last runs are known."""
        return len(self._recent)

    def price_of(self, target: str) -> Price:
        """Return what a target costs. Raise `PriceUnknown` where nobody has said, and such runs are refused."""
        price = self._settings.value.prices.price_of(target)
        if isinstance(price, Unpriced):
            raise PriceUnknown(
                f"What {target} costs is not known to the gateway, which refuses such predictions "
                '(prices.unknown = "refuse"). Its operator can add a [[prices.models]] for it.'
            )
        return price

    def estimate(self, target: str, given: bytes) -> Amounts:
        """Return what to hold for a run of a target on an input. Raise `PriceUnknown`."""
        price = self.price_of(target)
        return estimates.estimate(price, self._recent.typical(ledger.model_of(target)), estimates.told_by(given))

    def settlement(self, run: Run, status: Status, document: bytes, now: float) -> Settlement:
        """Say what a run that has ended came to."""
        model = ledger.model_of(run.target, _named(document))
        charge = self._charge(model, status, document)
        return Settlement(
            at=now,
            microusd=charge.microusd,
            milliseconds=charge.milliseconds,
            target=model,
            reason=BETWEEN.join((status, *charge.doubts)),
        )

    def basis(self, run: Run) -> Price:
        """Return the price by which a run is charged, as it is now."""
        return self._basis(ledger.model_of(run.target, _named(run.document)))

    def charge(self, run: Run) -> Charge:
        """Say what a run that has ended comes to by the prices of now, and how."""
        return self._charge(ledger.model_of(run.target, _named(run.document)), run.status, run.document)

    def _basis(self, model: str) -> Price:
        prices = self._settings.value.prices
        price = prices.price_of(model)
        if isinstance(price, Unpriced):
            # It was let in when it had a price, or before there was a rule that refuses it.
            return pricing.on_hardware(prices.default_hardware, prices.table)
        return price

    def _charge(self, model: str, status: Status, document: bytes) -> Charge:
        usage = usage_of(document, status)
        return pricing.charge(self._basis(model), usage, charge_failed=self._settings.value.prices.charge_failed)

    def note(self, run: Run, settlement: Settlement) -> None:
        """Learn from what was settled, and count it: last, so that a repeat after a failure counts it once."""
        self._learn(run.id, run.status, settlement)
        for doubt in settlement.reason.split(BETWEEN)[1:]:
            logger.warning("a charge is in doubt", extra={"run": run.id, "target": run.target, "reason": doubt})
            self._observer.charge_doubted(doubt)
        self._observer.spent(run.team, settlement.microusd)

    async def load(self, store: Ledger) -> None:
        """Learn from the runs that earlier processes settled last."""
        for line in await store.newest_spend(_LEARNED_LINES):
            status = line.reason.partition(BETWEEN)[0]
            if status in set(Status):
                made = Settlement(
                    at=line.at, microusd=line.microusd, milliseconds=line.milliseconds, target=line.target
                )
                self._learn(line.run_id or "", Status(status), made)

    def _learn(self, run_id: str, status: Status, settlement: Settlement) -> None:
        if cost_history.is_telling(status):
            sample = Sample(settlement.at, run_id, settlement.microusd, settlement.milliseconds)
            self._recent.add(settlement.target, sample)


def _named(document: bytes) -> str | None:
    """Return the model that upstream's body names."""
    try:
        return documents.read_news(document).model
    except ValueError:
        return None
