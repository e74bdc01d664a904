"""The store as a whole."""

from typing import Protocol

from gateway.domain.ports.observers import StoreObserver
from gateway.domain.ports.records import Files, Keys, Leases, Secrets, Versions
from gateway.money.ports import Ledger
from gateway.outputs.ports import Outputs
from gateway.predictions.ports.predictions import Predictions
from gateway.predictions.ports.sharing import Sharing
from gateway.streams.ports import EventLogs
from gateway.webhooks.ports import Deliveries


class Store(
    Predictions, Sharing, EventLogs, Deliveries, Keys, Files, Versions, Secrets, Leases, Ledger, Outputs, Protocol
):
    """Everything that lasts."""

    @property
    def pending(self) -> int:
        """How many steps have been asked for and not answered."""
        ...

    def set_observer(self, observer: StoreObserver) -> None:
        """Tell an observer of every answer from now on."""
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

    async def claim(self) -> None:
        """Begin to serve from this store. It ends with the process, however that ends.

        Raises `gateway.errors.StoreUnavailable` if the store takes one serving process only, and has one.
        """
        ...

    async def close(self) -> None:
        """Finish what was asked, then let go."""
        ...

    async def ping(self) -> None:
        """Prove that the store answers, by a write that is read back.

        Raises `gateway.errors.StoreUnavailable`, also if writes have failed lately because of the disk or the data.
        """
        ...

    @property
    def recent_failure(self) -> str | None:
        """What failed lately and may fail again, although the store answers."""
        ...
