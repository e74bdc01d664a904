"""Event logs of runs' streams (the `EventLogs` role)."""

from collections.abc import Mapping

from gateway.store.sql.connections import Connections, Lane
from gateway.store.sql.database import Database


class EventLogSteps(Connections):
    """Event logs, stored in parts."""

    async def append_events(self, run_id: str, first: int, part: bytes, *, kept_from: int) -> bool:
        """Store a part of a run's log."""

        def step(db: Database) -> bool:
            given = {"run_id": run_id, "first": first, "part": part, "node": db.node}
            added = db.execute("add_events", given).rowcount > 0
            if added:
                db.execute("delete_events_after", {"run_id": run_id, "first": first})
                db.execute("delete_events_before", {"run_id": run_id, "kept_from": kept_from})
            return added

        return await self._write(step, lane=Lane.PROGRESS)

    async def event_parts_since(self, cursors: Mapping[str, int]) -> dict[str, list[bytes]]:
        """Return the newest parts of several logs."""

        def step(db: Database) -> dict[str, list[bytes]]:
            found: dict[str, list[bytes]] = {}
            if db.is_shared:
                given = {"run_ids": list(cursors), "cursors": list(cursors.values())}
                for run_id, part in db.execute("events_since", given):
                    found.setdefault(run_id, []).append(part)
            return found

        return await self._read(step)

    async def event_parts(self, run_id: str) -> list[bytes]:
        """Return the parts of a run's log."""
        return await self._read(lambda db: [part for (part,) in db.execute("event_parts", {"run_id": run_id})])


def drop_events(db: Database, run_id: str) -> None:
    """Delete a run's log. Call wherever the run's data is deleted."""
    db.execute("delete_events", {"run_id": run_id})
