"""Runs that may answer later requests: how much they are, and which must make room.

Each has a row in `entries` while it may answer. What is looked for among all of them is read by the reading thread
first, so that the writing thread is kept for what changes; it looks again before it changes anything.
"""

import sqlite3

from gateway.domain.records import CacheStats
from gateway.store.sql.connections import Connections
from gateway.store.sql.queries import SQL


class SQLiteCache(Connections):
    """The entries as a whole. They come and go with their runs."""

    async def cache_stats(self, now: float, team: str | None = None) -> CacheStats:
        """Sum up the runs that may answer later requests."""
        return await self._read(lambda db: _stats(db, now, team))

    async def purge_cache(self, *, team: str | None = None, target: str | None = None, limit: int = 500) -> int:
        """Let runs of a team, of a target, or all, answer no more requests."""
        query = SQL["entries_of_all" if team is None else "entries_of_team"]
        scope = {"team": team, "target": "*" if target is None else target, "limit": limit}
        # A run's team and target never change: what fits now still fits when it is its turn.
        found = await self._read(lambda db: [run_id for (run_id,) in db.execute(query, scope)])
        if not found:
            return 0
        return await self._write(lambda db: sum(_drop(db, run_id) for run_id in found))

    async def evict_cache(self, max_bytes: int, now: float, limit: int = 100) -> int:
        """Let the least recently used runs answer no more requests, until the rest fits."""
        if (await self.cache_stats(now)).bytes <= max_bytes:
            return 0
        return await self._write(lambda db: _evict(db, max_bytes, now, limit))


def keep_entry(db: sqlite3.Connection, run_id: str) -> None:
    """Let a run answer later requests, if it is one that may: to be called when its `cache_until` was set."""
    db.execute(SQL["keep_entry"], {"run_id": run_id})


def _stats(db: sqlite3.Connection, now: float, team: str | None) -> CacheStats:
    query = "cache_stats_of_all" if team is None else "cache_stats_of_team"
    return CacheStats(*db.execute(SQL[query], {"now": now, "team": team}).fetchone())


def _evict(db: sqlite3.Connection, max_bytes: int, now: float, limit: int) -> int:
    excess = _stats(db, now, None).bytes - max_bytes
    doomed: list[str] = []
    for run_id, size in db.execute(SQL["entries_by_use"], {"now": now, "limit": limit}):
        if excess <= 0:
            break
        doomed.append(run_id)
        excess -= size
    return sum(_drop(db, run_id) for run_id in doomed)


def _drop(db: sqlite3.Connection, run_id: str) -> bool:
    """Let a run answer no more; say whether it might have."""
    if db.execute(SQL["drop_entry"], {"run_id": run_id}).rowcount == 0:
        return False
    db.execute(SQL["answer_no_more"], {"run_id": run_id})
    return True
