"""The interface of the store: all roles together, and its life cycle."""

from typing import Protocol

from gateway.domain.ports.observers import OperationsObserver
from gateway.domain.ports.records import Files, Keys, Secrets, Versions
from gateway.money.ports import Ledger
from gateway.outputs.ports import Outputs
from gateway.predictions.ports.predictions import Predictions
from gateway.predictions.ports.sharing import Sharing
from gateway.streams.ports import EventLogs
from gateway.webhooks.ports import Deliveries


class Store(Predictions, Sharing, EventLogs, Deliveries, Keys, Files, Versions, Secrets, Ledger, Outputs, Protocol):
    """All persistent data."""

    @property
    def pending(self) -> int:
        """Number of operations that are queued or in progress."""
        ...

    def set_observer(self, observer: OperationsObserver) -> None:
        """Set the observer that is notified of every finished operation."""
        ...

    async def open(self) -> None:
        """Connect and migrate the schema. Raise `StoreUnavailable` with the cause if that fails."""
        ...

    async def claim(self) -> None:
        """Claim the right to serve from this store until the process ends.

        Raise `StoreUnavailable` if the store allows only one serving process and another one has the claim.
        """
        ...

    async def close(self) -> None:
        """Finish the queued operations, then disconnect."""
        ...

    async def ping(self) -> None:
        """Write a value and read it back. Raise `StoreUnavailable` if that fails."""
        ...
