"""The webhook deliveries of a prediction, for its explanation."""

from collections.abc import Sequence

from gateway.domain.records import PredictionView
from gateway.operations.rules import explain
from gateway.operations.rules.explain import TimelineEvent
from gateway.webhooks.ports import Deliveries


class DeliveryHistory:
    """Returns the events of deliveries that were not accepted yet."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    async def events(self, view: PredictionView) -> Sequence[TimelineEvent]:
        """Return the events of a prediction's queued deliveries and dead letters."""
        if view.prediction.webhook is None:
            return ()
        found = await self._deliveries.deliveries_of(view.prediction.id)
        return [happening for delivery in found for happening in explain.of_delivery(delivery)]
