"""Explains a prediction to its owner: what became of it, why it was or was not shared, what it cost, and when."""

from gateway.access.authentication import AccessSettings
from gateway.domain.ports.records import Keys
from gateway.domain.records import PredictionView, Run
from gateway.domain.teams import Caller
from gateway.money.ports import Ledger
from gateway.money.pricing import Pricing
from gateway.operations.rules import explain
from gateway.operations.rules.explain import Happening, Priced
from gateway.predictions.ports.predictions import Predictions
from gateway.predictions.queries import PredictionService
from gateway.runtime.live import LiveSettings
from gateway.webhooks.ports import Deliveries


class ExplainService:
    """Gathers what the records say of a prediction."""

    def __init__(
        self,
        predictions: PredictionService,
        records: Predictions,
        ledger: Ledger,
        keys: Keys,
        pricing: Pricing,
        access: LiveSettings[AccessSettings],
        deliveries: Deliveries,
    ) -> None:
        self._predictions = predictions
        self._records = records
        self._ledger = ledger
        self._keys = keys
        self._pricing = pricing
        self._access = access
        self._deliveries = deliveries

    async def explain(self, caller: Caller, prediction_id: str) -> dict[str, object]:
        """Explain a prediction of the caller's. Raise `NotFound` for what is unknown and what is somebody else's."""
        known = await self._predictions.owned(caller, prediction_id)
        # Its identity may have been settled since it was last shown.
        view = await self._records.prediction(prediction_id) or known
        return explain.explain(
            view,
            await self._priced(view.run),
            key_name=await self._key_name(view.prediction.key_id),
            owns_run=caller.owns(view.run.team),
            further=await self._deliveries_of(view),
        )

    async def _deliveries_of(self, view: PredictionView) -> list[Happening]:
        """Return the webhooks of this prediction that are queued or were given up."""
        if view.prediction.webhook is None:
            return []
        found = await self._deliveries.deliveries_of(view.prediction.id)
        return [happening for delivery in found for happening in explain.of_delivery(delivery)]

    async def _priced(self, run: Run) -> Priced:
        basis = self._pricing.basis(run)
        if not run.status.is_terminal:
            return Priced(basis=basis)
        return Priced(basis=basis, charge=self._pricing.charge(run), settled=await self._ledger.spend_of(run.id))

    async def _key_name(self, key_id: str) -> str | None:
        """Name a key, whether or not it is still valid."""
        key = self._access.value.keys.get(key_id) or await self._keys.key(key_id)
        return None if key is None else key.name
