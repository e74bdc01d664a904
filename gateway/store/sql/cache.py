"""The result cache: its size, purging and eviction. A run is cached while it has a row in `entries`.

Searches over all entries run on the reading thread, to keep the writing thread free. The write then checks each entry
again.
"""

from gateway.domain.audit import Action, AuditedOperation, Change
from gateway.domain.records import CacheStats
from gateway.store.sql.audit import record
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock


class CacheSteps(Connections):
    """Operations on all cache entries. Single entries are written with their runs."""

    async def cache_stats(self, now: float, team: str | None = None) -> CacheStats:
        """Return the number and size of the cached runs."""
        return await self._read(lambda db: _stats(db, now, team))

    async def purge_cache(
        self,
        operation: AuditedOperation,
        *,
        team: str | None = None,
        target: str | None = None,
        limit: int = 500,
        purged_before: int = 0,
    ) -> int:
        """Remove runs of a team, of a target, or all from the cache; return how many were removed."""
        query = "entries_of_all" if team is None else "entries_of_team"
        scope = {"team": team, "target": "*" if target is None else target, "limit": limit}
        # A run's team and target never change, so a match found here is still one when the write runs.
        found = await self._read(lambda db: [run_id for (run_id,) in db.execute(query, scope)])
        if not found:
            return 0

        def step(db: Database) -> int:
            db.lock(Lock.RUN, *found)
            count = sum(_drop(db, run_id) for run_id in found)
            if count:
                after = {"target": target, "purged": purged_before + count}
                change = Change(
                    action=Action.CACHE_PURGED,
                    subject="all" if team is None else team,
                    team=team,
                    after=after,
                    operation=operation.id,
                )
                record(db, operation.at, operation.actor, change)
            return count

        return await self._write(step)

    async def evict_cache(self, max_bytes: int, now: float, limit: int = 100) -> int:
        """Remove the least recently used runs from the cache until the rest fits; return how many were removed."""
        if (await self.cache_stats(now)).bytes <= max_bytes:
            return 0
        return await self._write(lambda db: _evict(db, max_bytes, now, limit))


def keep_entry(db: Database, run_id: str) -> None:
    """Add a run to the cache if it is cacheable, or update its entry. Call after its `cache_until` was set."""
    db.execute("keep_entry", {"run_id": run_id})


def _stats(db: Database, now: float, team: str | None) -> CacheStats:
    query = "cache_stats_of_all" if team is None else "cache_stats_of_team"
    return CacheStats(*db.execute(query, {"now": now, "team": team}).fetchone())


def _evict(db: Database, max_bytes: int, now: float, limit: int) -> int:
    excess = _stats(db, now, None).bytes - max_bytes
    evicted: list[str] = []
    for run_id, size in db.execute("entries_by_use", {"now": now, "limit": limit}):
        if excess <= 0:
            break
        evicted.append(run_id)
        excess -= size
    db.lock(Lock.RUN, *evicted)
    return sum(_drop(db, run_id) for run_id in evicted)


def _drop(db: Database, run_id: str) -> bool:
    """Remove a run from the cache; return whether it was cached."""
    if db.execute("drop_entry", {"run_id": run_id}).rowcount == 0:
        return False
    db.execute("clear_cache_until", {"run_id": run_id})
    return True
