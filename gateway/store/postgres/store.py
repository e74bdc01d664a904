"""All persistent data, in one PostgreSQL database.

`sql/worker.py` and `lanes.py` explain how operations are executed.
"""

from typing import TYPE_CHECKING

from gateway.domain.ports.observers import NewsObserver
from gateway.nodes.news import News
from gateway.store.postgres.connections import PostgresConnections
from gateway.store.postgres.hits import record_hits
from gateway.store.postgres.news import PostgresNews
from gateway.store.postgres.nodes import PostgresNodes
from gateway.store.postgres.rates import RateSteps
from gateway.store.sql.steps import Steps

if TYPE_CHECKING:
    from gateway.store.interface import Store


class PostgresStore(Steps, RateSteps, PostgresConnections):
    """All persistent data, in one PostgreSQL database."""

    _record_hits = staticmethod(record_hits)
    _news: PostgresNews | None = None

    @property
    def nodes(self) -> PostgresNodes:
        """The nodes that serve from this database."""
        return self._nodes

    async def claim(self) -> None:
        """Do nothing: several processes may serve from a database. They join its `nodes`."""

    def open_news(self, observer: NewsObserver) -> News:
        """Exchange news with the other nodes until the store is closed."""
        news = PostgresNews(self.listen_address, observer)
        self._news = news
        news.start()
        return news

    async def close(self) -> None:
        """Send the last news, finish the queued operations, then close the connections."""
        if self._news is not None:
            await self._news.close()
        await super().close()

    async def _confirm_claim(self) -> None:
        """Do nothing: the lease of the node says whether this process may act."""


if TYPE_CHECKING:
    _: type[Store] = PostgresStore
