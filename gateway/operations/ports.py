"""Protocols of operations: counters of requests, and the store's own check."""

from collections.abc import Awaitable, Mapping
from typing import Protocol

from gateway.domain.documents import Family
from gateway.domain.records import Prediction, PredictionView
from gateway.domain.teams import Caller
from gateway.predictions.ports.predictions import Predictions
from gateway.predictions.ports.search import PredictionSearch
from gateway.webhooks.rules.deliveries import DeliveryCounts


class Figures(Protocol):
    """Counters of requests and refusals since the process started."""

    def requests_in_progress(self) -> int:
        """Return the number of requests in progress."""
        ...

    def refusals_by_limit(self) -> Mapping[tuple[str, str], int]:
        """Return the creates refused by limits, by team and `rate`, `concurrency`, `seconds` or `dollars`."""
        ...

    def refusals_by_reason(self) -> Mapping[str, int]:
        """Return the requests that the gateway refused, by the name of the error."""
        ...


class Ping(Protocol):
    """A store that can be checked."""

    async def ping(self) -> None:
        """Raise `StoreUnavailable` if the store does not answer, or if it cannot record anything at the moment."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other processes use the same store, so that they have its failures too."""
        ...

    @property
    def recent_failure(self) -> str | None:
        """What failed lately and may fail again, although the store answers."""
        ...


class DeliveryCounter(Protocol):
    """Counts webhook deliveries."""

    async def delivery_counts(self) -> DeliveryCounts:
        """Count queued deliveries, dead letters, and the places that are taken."""
        ...


class PredictionRecords(Predictions, PredictionSearch, Protocol):
    """Predictions, and the search of them."""

    async def predictions_of(self, run_id: str, *, limit: int = 10_000) -> list[Prediction]:
        """List the predictions that share a run, in order of creation."""
        ...


class PredictionViews(Protocol):
    """Predictions as their callers see them."""

    async def owned(self, caller: Caller, prediction_id: str) -> PredictionView:
        """Return a prediction that the caller may see. Raise `NotFound`."""
        ...

    def show_large(self, view: PredictionView, base: str, family: Family) -> Awaitable[bytes]:
        """Return the JSON of a prediction for its caller."""
        ...
