"""Sources of timeline events for the explanation of a prediction."""

from collections.abc import Sequence
from typing import Protocol

from gateway.domain.records import PredictionView
from gateway.operations.rules.explain import TimelineEvent


class HistorySource(Protocol):
    """Returns events of a prediction that its own records do not contain, such as webhook deliveries."""

    async def events(self, view: PredictionView) -> Sequence[TimelineEvent]:
        """Return the events of this prediction, without those of other predictions that share its run."""
        ...
