"""All persistent data, in one SQLite file.

`sql/worker.py` and `writer.py` explain how operations are executed.
"""

import asyncio
from typing import TYPE_CHECKING

from gateway.domain.ports.observers import NewsObserver
from gateway.nodes.news import News, NoNews
from gateway.store.sql.steps import Steps
from gateway.store.sqlite.claim import Claim
from gateway.store.sqlite.connections import SQLiteConnections
from gateway.store.sqlite.rates import OwnRates

if TYPE_CHECKING:
    from gateway.store.interface import Store


class SQLiteStore(Steps, OwnRates, SQLiteConnections):
    """All persistent data, in one SQLite file."""

    nodes = None
    _claim: Claim | None = None

    async def claim(self) -> None:
        """Claim the file for this process. Raise `StoreUnavailable` if another process serves from it."""
        claim = Claim(self.path)
        await asyncio.to_thread(claim.take)
        self._claim = claim

    def open_news(self, observer: NewsObserver) -> News:  # noqa: ARG002  there are no other nodes
        """Return news of nobody."""
        return NoNews()

    async def close(self) -> None:
        """Finish the queued operations, close the connections and release the claim."""
        await super().close()
        if self._claim is not None:
            self._claim.release()

    async def _confirm_claim(self) -> None:
        if self._claim is not None:
            await asyncio.to_thread(self._claim.renew)


if TYPE_CHECKING:
    _: type[Store] = SQLiteStore
