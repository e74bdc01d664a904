"""Explains a prediction to its owner: what became of it, why it was or was not shared, what it cost, and when."""

from collections.abc import Sequence

from gateway.access.authentication import AccessSettings
from gateway.domain.ports.records import Keys
from gateway.domain.records import Run
from gateway.domain.teams import Caller
from gateway.money.ports import Ledger
from gateway.money.pricing import Pricing
from gateway.operations.ports.explain import HistorySource
from gateway.operations.rules import explain
from gateway.operations.rules.explain import Happening, Priced
from gateway.predictions.ports.predictions import Predictions
from gateway.predictions.queries import PredictionService
from gateway.runtime.live import LiveSettings


class ExplainService:
    """Gathers what the records know. `sources` are asked for what other parts did."""

    def __init__(
        self,
        predictions: PredictionService,
        records: Predictions,
        ledger: Ledger,
        keys: Keys,
        pricing: Pricing,
        access: LiveSettings[AccessSettings],
        *,
        sources: Sequence[HistorySource] = (),
    ) -> None:
        self._predictions = predictions
        self._records = records
        self._ledger = ledger
        self._keys = keys
        self._pricing = pricing
        self._access = access
        self._tellers = sources

    async def explain(self, caller: Caller, prediction_id: str) -> dict[str, object]:
        """Explain a prediction of the caller's. Raise `NotFound` for what is unknown and what is somebody else's."""
        known = await self._predictions.owned(caller, prediction_id)
        # Its identity may have been settled since it was last shown.
        view = await self._records.prediction(prediction_id) or known
        further: list[Happening] = []
        for source in self._tellers:
            further += await source.events(view)
        return explain.explain(
            view,
            await self._priced(view.run),
            key_name=await self._key_name(view.prediction.key_id),
            owns_run=caller.owns(view.run.team),
            further=further,
        )

    async def _priced(self, run: Run) -> Priced:
        basis = self._pricing.basis(run)
        if not run.status.is_terminal:
            return Priced(basis=basis)
        return Priced(basis=basis, charge=self._pricing.charge(run), settled=await self._ledger.spend_of(run.id))

    async def _key_name(self, key_id: str) -> str | None:
        """Name a key, whether or not it is still valid."""
        key = self._access.value.keys.get(key_id) or await self._keys.key(key_id)
        return None if key is None else key.name
