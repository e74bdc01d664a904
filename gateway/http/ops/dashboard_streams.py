"""The usage pages that are kept new: bounded in all and for each who looks, and ended together."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiohttp import web

from gateway.errors import RateLimited, UpstreamUnavailable

MOST: Final = 50
"""Pages at a time: each has its figures drawn and sent every few seconds."""
MOST_EACH: Final = 20
"""Of the operators, or of one team."""
_RETRY_SECONDS: Final = 1


class OpenPages:
    """Counts pages."""

    def __init__(self) -> None:
        self._by_viewer: Counter[str | None] = Counter()
        self.closing = asyncio.Event()
        """Set at the gateway's end."""

    @property
    def count(self) -> int:
        """How many are kept new."""
        return self._by_viewer.total()

    @contextmanager
    def place(self, whose: str | None) -> Iterator[None]:
        """Hold a place for a page of a team, or (`None`) of the operators.

        Raise `RateLimited` when there are too many, `UpstreamUnavailable` at the gateway's end.
        """
        if self.closing.is_set():
            raise UpstreamUnavailable("The gateway is shutting down.", retry_after=_RETRY_SECONDS)
        if self.count >= MOST or self._by_viewer[whose] >= MOST_EACH:
            raise RateLimited("Too many usage pages are kept new.", retry_after=_RETRY_SECONDS)
        self._by_viewer[whose] += 1
        try:
            yield
        finally:
            self._by_viewer[whose] -= 1


OPEN_PAGES = web.AppKey("open_pages", OpenPages)
