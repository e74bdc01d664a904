"""Event logs of runs' streams (the `EventLogs` role)."""

from collections.abc import Mapping, Sequence

from gateway.nodes.news import Topic
from gateway.store.sql.connections import Connections, Lane
from gateway.store.sql.database import Database
from gateway.streams.ports import LogPart


class EventLogSteps(Connections):
    """Event logs, stored in parts."""

    async def append_events(self, parts: Sequence[LogPart]) -> set[str]:
        """Store parts of several runs' logs, and tell the nodes that read them as they grow."""

        def step(db: Database) -> set[str]:
            added = _append_set(db, parts) if db.is_shared else {each.run_id for each in parts if _append(db, each)}
            db.tell(Topic.EVENTS, *(each.run_id for each in parts if each.is_told and each.run_id in added))
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


def _append(db: Database, given: LogPart) -> bool:
    parameters = {"run_id": given.run_id, "first": given.first, "part": given.part, "node": db.node}
    added = db.execute("add_events", parameters).rowcount > 0
    if added:
        db.execute("delete_events_after", {"run_id": given.run_id, "first": given.first})
        db.execute("delete_events_before", {"run_id": given.run_id, "kept_from": given.kept_from})
    return added


def _append_set(db: Database, parts: Sequence[LogPart]) -> set[str]:
    """Store all parts in one statement. Where nodes read streams as they grow, it would else be thousands a second."""
    given = {
        "run_ids": [each.run_id for each in parts],
        "firsts": [each.first for each in parts],
        "parts": [each.part for each in parts],
        "kept_from": [each.kept_from for each in parts],
        "node": db.node,
    }
    return {run_id for (run_id,) in db.execute("append_events", given)}


def drop_events(db: Database, run_id: str) -> None:
    """Delete a run's log. Call wherever the run's data is deleted."""
    db.execute("delete_events", {"run_id": run_id})
