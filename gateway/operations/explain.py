"""Explain a prediction to its owner: how it was handled, why it was or was not shared, its cost and its timeline."""

from gateway.access.authentication import AccessSettings
from gateway.domain.ports.records import Keys
from gateway.domain.records import LARGE_DOCUMENT, PredictionView, Run
from gateway.domain.teams import Caller
from gateway.errors import NotFound
from gateway.money.ports import Ledger
from gateway.money.pricing import Charges
from gateway.operations.ports import PredictionViews
from gateway.operations.rules import explain
from gateway.operations.rules.explain import Priced, TimelineEvent
from gateway.predictions.ports.predictions import Predictions
from gateway.runtime.large_work import LargeWork
from gateway.runtime.live import LiveSettings
from gateway.webhooks.ports import Deliveries

_LARGE_DOCUMENTS = 2
"""Explanations at a time that read a large document; one of each team."""


class ExplainService:
    """Gathers what the records say of a prediction."""

    def __init__(
        self,
        predictions: PredictionViews,
        records: Predictions,
        ledger: Ledger,
        keys: Keys,
        pricing: Charges,
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
        self._large = LargeWork(_LARGE_DOCUMENTS)

    async def explain(self, caller: Caller, prediction_id: str) -> dict[str, object]:
        """Explain a prediction of the caller's team. Raise `NotFound` if it is unknown or another team's."""
        known = await self._predictions.owned(caller, prediction_id)
        # Read the record: the cached view can be older than the settling of the run's identity.
        view = await self._records.prediction(prediction_id, most_bytes=LARGE_DOCUMENT) or known
        owns_run = caller.owns(view.run.team) and (
            caller.sees_owner is None or view.prediction.id == view.run.leader_id
        )
        return await self._explain(view, owns_run=owns_run, shows_team=not caller.is_public)

    async def explain_to_operator(self, prediction_id: str) -> dict[str, object]:
        """Explain a prediction of any team, with all of its run. Raise `NotFound` if it is unknown."""
        view = await self._records.prediction(prediction_id, most_bytes=LARGE_DOCUMENT)
        if view is None:
            raise NotFound
        return await self._explain(view, owns_run=True, shows_team=True)

    async def _explain(self, view: PredictionView, *, owns_run: bool, shows_team: bool) -> dict[str, object]:
        if not view.left_out:
            return await self._explain_whole(view, owns_run=owns_run, shows_team=shows_team)
        async with self._large.turn(view.prediction.team):
            whole = await self._records.prediction(view.prediction.id) or view
            return await self._explain_whole(whole, owns_run=owns_run, shows_team=shows_team)

    async def _explain_whole(self, view: PredictionView, *, owns_run: bool, shows_team: bool) -> dict[str, object]:
        return explain.explain(
            view,
            await self._priced(view.run),
            key_name=await self._key_name(view.prediction.key_id),
            owns_run=owns_run,
            shows_team=shows_team,
            further=await self._deliveries_of(view),
        )

    async def _deliveries_of(self, view: PredictionView) -> list[TimelineEvent]:
        """Return the webhooks of this prediction that are queued or were given up."""
        if view.prediction.webhook is None:
            return []
        found = await self._deliveries.deliveries_of(view.prediction.id)
        return [event for delivery in found for event in explain.of_delivery(delivery)]

    async def _priced(self, run: Run) -> Priced:
        basis = self._pricing.basis(run)
        if not run.status.is_terminal:
            return Priced(basis=basis)
        return Priced(basis=basis, charge=self._pricing.charge(run), settled=await self._ledger.spend_of(run.id))

    async def _key_name(self, key_id: str) -> str | None:
        """Return the name of a key, valid or not; `None` if it is unknown."""
        key = self._access.value.keys.get(key_id) or await self._keys.key(key_id)
        return None if key is None else key.name
