"""What other parts know of a prediction, for its explanation."""

from collections.abc import Sequence

from gateway.domain.records import PredictionView
from gateway.operations.rules import explain
from gateway.operations.rules.explain import Happening
from gateway.webhooks.ports import Deliveries


class DeliveryHistory:
    """Tells of the messages to a prediction's receiver that were not taken yet."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    async def events(self, view: PredictionView) -> Sequence[Happening]:
        """Tell what is queued for this prediction, and what was given up."""
        if view.prediction.webhook is None:
            return ()
        found = await self._deliveries.deliveries_of(view.prediction.id)
        return [happening for delivery in found for happening in explain.of_delivery(delivery)]
