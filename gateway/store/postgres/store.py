"""All persistent data, in one PostgreSQL database.

`sql/worker.py` and `lanes.py` explain how operations are executed.
"""

import asyncio
from typing import TYPE_CHECKING

from gateway.domain.ports.observers import NewsObserver
from gateway.nodes.news import News
from gateway.store.postgres.claim import Claim
from gateway.store.postgres.connections import PostgresConnections
from gateway.store.postgres.news import PostgresNews
from gateway.store.postgres.nodes import PostgresNodes
from gateway.store.sql.steps import Steps

if TYPE_CHECKING:
    from gateway.store.interface import Store


class PostgresStore(Steps, PostgresConnections):
    """All persistent data, in one PostgreSQL database."""

    _claim: Claim | None = None
    _news: PostgresNews | None = None

    @property
    def nodes(self) -> PostgresNodes:
        """The nodes that serve from this database."""
        return self._nodes

    async def claim(self) -> None:
        """Claim the database for this process. Raise `StoreUnavailable` if another process serves from it."""
        claim = Claim(self.address)
        await asyncio.to_thread(claim.take)
        self._claim = claim

    def open_news(self, observer: NewsObserver) -> News:
        """Exchange news with the other nodes until the store is closed."""
        news = PostgresNews(self.listen_address, observer)
        self._news = news
        news.start()
        return news

    async def close(self) -> None:
        """Send the last news, finish the queued operations, close the connections and release the claim."""
        if self._news is not None:
            await self._news.close()
        await super().close()
        if self._claim is not None:
            await asyncio.to_thread(self._claim.release)

    async def _confirm_claim(self) -> None:
        if self._claim is not None:
            await asyncio.to_thread(self._claim.renew)


if TYPE_CHECKING:
    _: type[Store] = PostgresStore
