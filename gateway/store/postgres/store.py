"""All persistent data, in one PostgreSQL database.

`sql/worker.py` and `lanes.py` explain how operations are executed.
"""

import asyncio
from typing import TYPE_CHECKING

from gateway.store.postgres.claim import Claim
from gateway.store.postgres.connections import PostgresConnections
from gateway.store.postgres.hits import record_hits
from gateway.store.postgres.nodes import PostgresNodes
from gateway.store.sql.steps import Steps

if TYPE_CHECKING:
    from gateway.store.interface import Store


class PostgresStore(Steps, PostgresConnections):
    """All persistent data, in one PostgreSQL database."""

    _record_hits = staticmethod(record_hits)
    _claim: Claim | None = None

    @property
    def nodes(self) -> PostgresNodes:
        """The nodes that serve from this database."""
        return self._nodes

    async def claim(self) -> None:
        """Claim the database for this process. Raise `StoreUnavailable` if another process serves from it."""
        claim = Claim(self.listen_address)
        await asyncio.to_thread(claim.take)
        self._claim = claim

    async def close(self) -> None:
        """Finish the queued operations, close the connections and release the claim."""
        await super().close()
        if self._claim is not None:
            await asyncio.to_thread(self._claim.release)

    async def _confirm_claim(self) -> None:
        if self._claim is not None:
            await asyncio.to_thread(self._claim.renew)


if TYPE_CHECKING:
    _: type[Store] = PostgresStore
