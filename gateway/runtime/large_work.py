"""Bounds work on large documents that are read for it: so many at a time, and fewer for one team.

For work in the background. A request that waits for a client takes room for its response (`http/response_memory.py`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class LargeWork:
    """Lets a few pieces of work run at a time, one of each team."""

    def __init__(self, most: int) -> None:
        self._all = asyncio.Semaphore(most)
        self._of_team: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, team: str) -> AsyncIterator[None]:
        """Wait for a turn, which ends with the context. Turns are in order."""
        # The team's own lock comes first: its work waits for each other, and other teams' does not.
        lock = self._of_team.setdefault(team, asyncio.Lock())
        async with lock, self._all:
            yield
