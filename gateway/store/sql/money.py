"""The ledger as it is asked (the `Ledger` role). Lines come about in the steps of `intents.py`, `predictions.py`, ….

What is summed up over many lines is read by the reading thread.
"""

import sqlite3
from collections.abc import Sequence

from gateway.domain import quota
from gateway.domain.ledger import By, Entry, EntryKind, Reservation, Settlement, Usage
from gateway.domain.quota import Counters
from gateway.domain.records import RunState
from gateway.store.sql.connections import Connections
from gateway.store.sql.ledger_entries import forget_users, insert_entry, settle, settlement_of
from gateway.store.sql.lookup import find_run
from gateway.store.sql.queries import SQL
from gateway.store.sql.reservations import read_meters, release
from gateway.store.sql.rows import ENTRIES, RESERVATIONS


class SQLiteMoney(Connections):
    """What is held, and what was spent and saved."""

    async def meters(self, scopes: Sequence[str], now: float) -> dict[str, Counters]:
        """Return what is counted for each of the scopes."""
        return await self._read(lambda db: read_meters(db, scopes, now))

    async def usage(
        self, by: By, *, since: int, until: int, team: str | None = None, limit: int = 10_000
    ) -> list[Usage]:
        """Sum up days."""
        window = {"since": since, "until": until, "limit": limit}

        def step(db: sqlite3.Connection) -> list[Usage]:
            teams = [team] if team is not None else _teams(db)
            return [row for name in teams for row in _usage(db, by, {**window, "team": name})]

        return await self._read(step)

    async def adjust(self, team: str, microusd: int, reason: str, at: float) -> None:
        """Add a correction."""
        entry = Entry(
            at=at,
            team=team,
            kind=EntryKind.ADJUSTMENT,
            microusd=microusd,
            reason=reason,
            scopes=quota.scopes_of(team),
        )

        def step(db: sqlite3.Connection) -> None:
            insert_entry(db, entry)

        await self._write(step, durable=True)

    async def spend_of(self, run_id: str) -> Entry | None:
        """Find a run's settlement."""
        return await self._read(lambda db: settlement_of(db, run_id))

    async def newest_spend(self, limit: int) -> list[Entry]:
        """List the runs settled last."""
        return await self._read(
            lambda db: [ENTRIES.record(row) for row in db.execute(SQL["newest_spend"], {"limit": limit})]
        )

    async def warn_once(self, team: str, name: str, day: int, percent: int) -> bool:
        """Note that a warning was given."""
        warning = {"team": team, "name": name, "day": day, "percent": percent}
        return await self._write(lambda db: db.execute(SQL["note_warning"], warning).rowcount > 0)

    async def unsettled(self, before: float) -> int:
        """Count old reservations."""

        def step(db: sqlite3.Connection) -> int:
            ((count,),) = db.execute(SQL["unsettled"], {"before": before}).fetchall()
            return int(count)

        return await self._read(step)

    async def stuck_reservations(self, limit: int) -> list[Reservation]:
        """List reservations whose run is not under way."""
        return await self._read(
            lambda db: [RESERVATIONS.record(row) for row in db.execute(SQL["stuck_reservations"], {"limit": limit})]
        )

    async def free_reservation(self, run_id: str, settlement: Settlement | None) -> bool:
        """Settle a run that has ended, or release what is held for one that is gone."""
        return await self._write(lambda db: _free(db, run_id, settlement), durable=True)

    async def prune_ledger(self, *, lines_before: int, spent_before: int, now: float, limit: int) -> int:
        """Forget old lines, and counters that no budget asks for."""

        def step(db: sqlite3.Connection) -> int:
            went = db.execute(SQL["delete_old_entries"], {"before": lines_before, "limit": limit}).rowcount
            went += forget_users(db, lines_before, limit - went)
            went += db.execute(SQL["delete_old_spent"], {"before": spent_before, "limit": limit - went}).rowcount
            went += db.execute(SQL["delete_old_warnings"], {"before": spent_before, "limit": limit - went}).rowcount
            return went + db.execute(SQL["forget_idle_meters"], {"now": now, "limit": limit - went}).rowcount

        return await self._write(step, erases=True)


def _teams(db: sqlite3.Connection) -> list[str]:
    """List the teams that have used anything, by one look at the index for each."""
    teams: list[str] = []
    while (
        team := db.execute(SQL["next_team_with_usage"], {"after": teams[-1] if teams else ""}).fetchone()[0]
    ) is not None:
        teams.append(team)
    return teams


def _usage(db: sqlite3.Connection, by: By, wanted: dict[str, str | int]) -> list[Usage]:
    rows = db.execute(SQL[f"usage_by_{by}"], wanted)
    return [Usage(**dict(zip(Usage.__struct_fields__, row, strict=True))) for row in rows]


def _free(db: sqlite3.Connection, run_id: str, settlement: Settlement | None) -> bool:
    run = find_run(db, "run", {"id": run_id})
    if run is not None and run.state in (RunState.INTENDED, RunState.LIVE):
        return False
    if run is None or settlement is None:
        return run is None and release(db, run_id) is not None
    if db.execute(SQL["reservation"], {"run_id": run_id}).fetchone() is None:
        return False
    settle(db, run_id, settlement)
    return True
