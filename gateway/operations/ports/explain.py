"""Those who know a part of a prediction's story."""

from collections.abc import Sequence
from typing import Protocol

from gateway.domain.records import PredictionView
from gateway.operations.rules.explain import Happening


class HistorySource(Protocol):
    """Whoever did something for a prediction that its own record does not tell: deliveries, copies of outputs."""

    async def events(self, view: PredictionView) -> Sequence[Happening]:
        """Tell what was done for this prediction; nothing of others that share its run."""
        ...
