"""Reloads of the config over nodes: one that is asked of a node is followed by the others.

The store counts them, so that a node whose news were lost finds out whether there was one. Only then it reads its own
file, which can have been edited without a reload.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from gateway.domain.ports.clock import Clock
from gateway.errors import GatewayError
from gateway.nodes.news import News, Topic
from gateway.nodes.ports import Nodes

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


class SharedReloads:
    """Counts the reloads that are asked for here, and follows those of other nodes."""

    def __init__(self, nodes: Nodes, news: News, clock: Clock, follow: Callable[[], None]) -> None:
        """Take `follow`, which is called after other nodes have reloaded their config."""
        self._nodes = nodes
        self._news = news
        self._clock = clock
        self._follow = follow
        self._seen: int | None = None
        """The number of reloads that this node has followed or has made."""
        self._own = 0
        """Reloads here that the store does not count yet."""
        self._is_due = asyncio.Event()
        self._is_due.set()
        news.add_listener(Topic.TEAMS, self._on_news)

    def reloaded(self) -> None:
        """Count a reload that was asked for here, and tell the others. Call after it was accepted."""
        self._own += 1
        self._is_due.set()

    def _on_news(self, _: Sequence[str] | None) -> None:
        self._is_due.set()

    async def run(self) -> None:
        """Count, tell and follow until cancelled. While the store is away, what is due waits."""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            try:
                await self._catch_up()
            except GatewayError as exc:
                logger.warning("reloads of other nodes wait for the store", extra={"reason": exc.detail})
                await self._clock.sleep(_RETRY_SECONDS)
                self._is_due.set()

    async def _catch_up(self) -> None:
        if self._seen is None:
            self._seen = await self._nodes.reloads()
        own, count = self._own, 0
        for _ in range(own):
            count = await self._nodes.note_reload()
            self._own -= 1
            self._seen += 1
        if own:
            self._news.tell(Topic.TEAMS, "")
        else:
            count = await self._nodes.reloads()
        if count > self._seen:
            self._seen = count
            self._follow()
