"""The interface of the store: all roles together, and its life cycle."""

from typing import Protocol

from gateway.domain.ports.audit import AuditLog
from gateway.domain.ports.observers import NewsObserver, OperationsObserver
from gateway.domain.ports.records import Files, Keys, Secrets, Versions
from gateway.money.ports import Ledger
from gateway.nodes.news import News
from gateway.nodes.ports import Nodes
from gateway.outputs.ports import Outputs
from gateway.predictions.ports.predictions import Predictions
from gateway.predictions.ports.search import PredictionSearch
from gateway.predictions.ports.sharing import Sharing
from gateway.streams.ports import EventLogs
from gateway.throttling.ports import DividedRates
from gateway.webhooks.ports import Deliveries


class Store(
    Predictions,
    PredictionSearch,
    Sharing,
    EventLogs,
    Deliveries,
    Keys,
    Files,
    Versions,
    Secrets,
    Ledger,
    AuditLog,
    Outputs,
    DividedRates,
    Protocol,
):
    """All persistent data."""

    @property
    def pending(self) -> int:
        """Number of operations that are queued or in progress."""
        ...

    def set_observer(self, observer: OperationsObserver) -> None:
        """Set the observer that is notified of every finished operation."""
        ...

    def bound_tag_values(self, most: int) -> None:
        """Set how many values of a cost tag are counted by name, for each team and day."""
        ...

    async def open(self, *, create: bool = True) -> bool:
        """Connect and bring the schema up to date. Return whether the store is new.

        With `create=False`, a store that does not exist is refused. Raises `gateway.errors.StoreUnavailable`.
        """
        ...

    async def inspect(self) -> bool:
        """Say whether the store exists. Create and change nothing.

        Raises `gateway.errors.StoreUnavailable` if `open` would.
        """
        ...

    @property
    def nodes(self) -> Nodes | None:
        """The nodes that serve from this store; `None` where one process serves."""
        ...

    async def claim(self) -> None:
        """Claim the right to serve from this store until the process ends.

        Raise `StoreUnavailable` if the store allows only one serving process and another one has the claim.
        """
        ...

    def open_news(self, observer: NewsObserver) -> News:
        """Exchange news with the other nodes that serve from this store, until the store is closed. Call it once."""
        ...

    async def close(self) -> None:
        """Finish the queued operations, then disconnect."""
        ...

    async def ping(self) -> None:
        """Prove that the store answers, by a write that is read back.

        Raises `gateway.errors.StoreUnavailable`, also if writes have failed lately because of the disk or the data.
        """
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other processes use the same store, so that they have its failures too."""
        ...

    @property
    def recent_failure(self) -> str | None:
        """What failed lately and may fail again, although the store answers."""
        ...
