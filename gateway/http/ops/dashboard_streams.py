"""The registry of the dashboard's event streams: limits in total and per viewer, and closing at shutdown."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from gateway.errors import RateLimited, UpstreamUnavailable

MAX_STREAMS: Final = 50
"""Most streams open at once. The page is rendered for each of them every two seconds."""
MAX_PER_VIEWER: Final = 20
"""Most streams of one viewer: a team, or the operators together."""
_RETRY_SECONDS: Final = 1


class OpenPages:
    """Counts the open event streams of the dashboard."""

    def __init__(self) -> None:
        self._by_viewer: Counter[str | None] = Counter()
        self.closing = asyncio.Event()
        """Set at shutdown."""

    @property
    def count(self) -> int:
        """Number of open streams."""
        return self._by_viewer.total()

    @contextmanager
    def place(self, viewer: str | None) -> Iterator[None]:
        """Count a stream of a team, or of the operators (`None`), while the context is open.

        Raise `RateLimited` at a limit, `UpstreamUnavailable` during shutdown.
        """
        if self.closing.is_set():
            raise UpstreamUnavailable("The gateway is shutting down.", retry_after=_RETRY_SECONDS)
        if self.count >= MAX_STREAMS or self._by_viewer[viewer] >= MAX_PER_VIEWER:
            raise RateLimited("Too many dashboard pages are open.", retry_after=_RETRY_SECONDS)
        self._by_viewer[viewer] += 1
        try:
            yield
        finally:
            self._by_viewer[viewer] -= 1


OPEN_PAGES = web.AppKey("open_pages", OpenPages)
