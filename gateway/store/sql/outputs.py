"""Records of stored output files (the `Outputs` role): the copies of each run, and objects to delete.

An object is marked for deletion (`doomed`) when no run has it any more. The eviction task then deletes its bytes and
its record.
"""

from collections.abc import Sequence

import msgspec

from gateway.domain.records import Copy, Run
from gateway.outputs.ports import OutputStats
from gateway.sharing.rules.caching import LINKS_LIVE_SECONDS
from gateway.store.sql.connections import Connections, Lane
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock
from gateway.store.sql.lookup import find_run, list_runs

_decode_copies = msgspec.json.Decoder(tuple[Copy, ...]).decode


class OutputSteps(Connections):
    """Copies of runs, and the objects that hold their bytes."""

    async def runs_ended(self, *, since: float, after: str = "", limit: int = 50) -> list[Run]:
        """List runs that ended since a time."""
        parameters: dict[str, str | float | None] = {"since": since, "after": after, "limit": limit}
        return await self._read(lambda db: list_runs(db, "runs_ended", parameters | {"node": db.node}))

    async def claim_object(self, sha256: str, size: int, now: float, until: float) -> bool:
        """Claim an object whose bytes will be written."""
        claim = {"sha256": sha256, "size": size, "now": now, "until": until}

        def step(db: Database) -> bool:
            db.lock(Lock.OUTPUTS)
            return bool(db.execute("claim_object", claim).fetchall())

        return await self._write(step, durable=True)

    async def keep_copies(self, run_id: str, copies: Sequence[Copy], cache_until: float | None) -> Run | None:
        """Set the copies of a run."""
        return await self._write(lambda db: _keep_copies(db, run_id, copies, cache_until))

    async def use_object(self, sha256: str, now: float) -> None:
        """Record that an object was read."""

        def step(db: Database) -> None:
            db.execute("use_object", {"sha256": sha256, "now": now})

        await self._write(step, lane=Lane.PROGRESS)

    async def drop_object(self, sha256: str) -> bool:
        """Remove an object from all runs and mark it for deletion."""

        def step(db: Database) -> bool:
            db.lock(Lock.OUTPUTS)
            return _drop(db, sha256)

        return await self._write(step, erases=True)

    async def drop_old_copies(self, stored_before: float, limit: int) -> int:
        """Remove old copies from their runs."""
        parameters = {"stored_before": stored_before, "limit": limit}

        def step(db: Database) -> int:
            db.lock(Lock.OUTPUTS)
            old = db.execute("old_copies", parameters).fetchall()
            for sha256, run_id in old:
                _remove_copy(db, run_id, sha256)
                db.execute("mark_if_unowned", {"sha256": sha256})
            return len(old)

        return await self._write(step, erases=True)

    async def evict_objects(self, max_bytes: int, now: float, limit: int = 50) -> int:
        """Mark the least recently used objects for deletion until the rest fits."""
        if (await self.output_stats()).bytes <= max_bytes:
            return 0
        return await self._write(lambda db: _evict(db, max_bytes, now, limit), erases=True)

    async def claim_deletions(self, now: float, until: float, limit: int = 50) -> list[str]:
        """Claim objects that are marked for deletion."""
        return await self._write(lambda db: _claim_deletions(db, now, until, limit))

    async def delete_object_record(self, sha256: str) -> None:
        """Delete the record of an object that is marked for deletion."""

        def step(db: Database) -> None:
            db.execute("delete_object", {"sha256": sha256})

        await self._write(step)

    async def output_stats(self) -> OutputStats:
        """Return the number and total size of the objects."""
        return await self._read(_stats)


def release_copies(db: Database, run_id: str) -> None:
    """Remove a run's copies. Call when the run's data or its record is deleted, with `Lock.OUTPUTS`."""
    for (sha256,) in db.execute("objects_of", {"run_id": run_id}).fetchall():
        db.execute("remove_owner", {"sha256": sha256, "run_id": run_id})
        db.execute("mark_if_unowned", {"sha256": sha256})


def _stats(db: Database) -> OutputStats:
    return OutputStats(*db.execute("output_stats").fetchone())


def _keep_copies(db: Database, run_id: str, copies: Sequence[Copy], cache_until: float | None) -> Run | None:
    db.lock(Lock.OUTPUTS)
    db.lock(Lock.RUN, run_id)
    run = find_run(db, "run_to_keep_copies", {"run_id": run_id, "node": db.node})
    if run is None:
        return None
    kept = [copy for copy in copies if db.execute("end_claim", {"sha256": copy.sha256}).fetchall()]
    for copy in kept:
        db.execute("add_owner", {"sha256": copy.sha256, "run_id": run_id, "stored_at": copy.stored_at})
    for sha256 in {copy.sha256 for copy in run.copies} - {copy.sha256 for copy in kept}:
        db.execute("remove_owner", {"sha256": sha256, "run_id": run_id})
        db.execute("mark_if_unowned", {"sha256": sha256})
    _save(db, run_id, kept)
    if cache_until is not None and len(kept) == len(copies):
        db.execute("extend_caching", {"run_id": run_id, "cache_until": cache_until})
        db.execute("update_entry_from_run", {"run_id": run_id})
    return find_run(db, "run", {"id": run_id})


def _save(db: Database, run_id: str, copies: Sequence[Copy]) -> None:
    ordered = sorted(copies, key=lambda copy: copy.place)
    db.execute("save_copies", {"run_id": run_id, "copies": msgspec.json.encode(ordered).decode()})


def _remove_copy(db: Database, run_id: str, sha256: str) -> None:
    """Remove an object from a run's copies. From then on the run is cached only as long as upstream's links live."""
    row = db.execute("copies_of", {"run_id": run_id}).fetchone()
    if row is not None:
        _save(db, run_id, [copy for copy in _decode_copies(row[0]) if copy.sha256 != sha256])
        db.execute("shorten_caching", {"run_id": run_id, "seconds": LINKS_LIVE_SECONDS})
        db.execute("update_entry_from_run", {"run_id": run_id})
    db.execute("remove_owner", {"sha256": sha256, "run_id": run_id})


def _drop(db: Database, sha256: str) -> bool:
    for (run_id,) in db.execute("owners_of", {"sha256": sha256}).fetchall():
        _remove_copy(db, run_id, sha256)
    return db.execute("mark_for_deletion", {"sha256": sha256}).rowcount > 0


def _evict(db: Database, max_bytes: int, now: float, limit: int) -> int:
    db.lock(Lock.OUTPUTS)
    excess = _stats(db).bytes - max_bytes
    evicted: list[str] = []
    for sha256, size in db.execute("objects_by_use", {"now": now, "limit": limit}):
        if excess <= 0:
            break
        evicted.append(sha256)
        excess -= size
    return sum(_drop(db, sha256) for sha256 in evicted)


def _claim_deletions(db: Database, now: float, until: float, limit: int) -> list[str]:
    db.lock(Lock.OUTPUTS)
    # A claim expires when its writer has failed or died before it gave the object to a run.
    for (sha256,) in db.execute("expired_claims", {"now": now, "limit": limit}).fetchall():
        db.execute("end_claim", {"sha256": sha256}).fetchall()
        db.execute("mark_if_unowned", {"sha256": sha256})
    marked = [sha256 for (sha256,) in db.execute("marked_for_deletion", {"now": now, "limit": limit})]
    for sha256 in marked:
        db.execute("claim_deletion", {"sha256": sha256, "until": until})
    return marked
