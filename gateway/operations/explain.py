"""Explain a prediction to its owner: how it was handled, why it was or was not shared, its cost and its timeline."""

from collections.abc import Mapping, Sequence

from gateway.domain.ports.records import Keys
from gateway.domain.records import Run
from gateway.domain.teams import Caller
from gateway.money.ports import Ledger
from gateway.money.pricing import Pricing
from gateway.operations.ports.explain import HistorySource
from gateway.operations.rules import explain
from gateway.operations.rules.explain import Priced, TimelineEvent
from gateway.predictions.ports.predictions import Predictions
from gateway.predictions.queries import PredictionService


class ExplainService:
    """Collects the records of a prediction. `sources` add events of other services to the timeline."""

    def __init__(
        self,
        predictions: PredictionService,
        records: Predictions,
        ledger: Ledger,
        keys: Keys,
        pricing: Pricing,
        *,
        config_keys: Mapping[str, str],
        sources: Sequence[HistorySource] = (),
    ) -> None:
        self._predictions = predictions
        self._records = records
        self._ledger = ledger
        self._keys = keys
        self._pricing = pricing
        self.reconfigure(config_keys)
        self._tellers = sources

    def reconfigure(self, config_keys: Mapping[str, str]) -> None:
        """Go by other names of the config's keys, by their ids, from now on."""
        self._config_keys = config_keys

    async def explain(self, caller: Caller, prediction_id: str) -> dict[str, object]:
        """Explain a prediction of the caller's team. Raise `NotFound` if it is unknown or another team's."""
        known = await self._predictions.owned(caller, prediction_id)
        # Read the record: the cached view can be older than the settling of the run's identity.
        view = await self._records.prediction(prediction_id) or known
        further: list[TimelineEvent] = []
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
        """Return the name of a key, valid or not; `None` if it is unknown."""
        if (name := self._config_keys.get(key_id)) is not None:
            return name
        key = await self._keys.key(key_id)
        return None if key is None else key.name
