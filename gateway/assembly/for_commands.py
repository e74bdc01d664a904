"""Builds services for commands, which read the store without the rest of a gateway."""

from gateway.assembly import settings
from gateway.config import Config
from gateway.domain import rendering
from gateway.domain.documents import Family
from gateway.domain.records import PredictionView
from gateway.domain.teams import Caller
from gateway.money.pricing import Charges
from gateway.operations.explain import ExplainService
from gateway.operations.prediction_log import PredictionLog
from gateway.predictions.views import owned_by
from gateway.runtime.live import LiveSettings
from gateway.store.interface import Store


class _StoredViews:
    """Predictions as the store has them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def owned(self, caller: Caller, prediction_id: str) -> PredictionView:
        return owned_by(await self._store.prediction(prediction_id), caller, None)

    async def show_large(self, view: PredictionView, base: str, family: Family) -> bytes:
        return rendering.render(view, base, "", family=family)


def prediction_log(config: Config, store: Store) -> PredictionLog:
    """Return the predictions in a store. Links of output files are Replicate's."""
    views = _StoredViews(store)
    prices = Charges(LiveSettings(settings.money_settings(config)))
    access = LiveSettings(settings.access_settings(config))
    explain = ExplainService(views, store, store, store, prices, access, store)
    return PredictionLog(store, views, explain, LiveSettings(settings.admin_settings(config)))
