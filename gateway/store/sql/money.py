"""Read and maintain the ledger (the `Ledger` role).

The operations in `intents.py`, `predictions.py` and others write the entries, in their own transactions.
"""

from collections.abc import Sequence
from typing import Any

from gateway.domain import quota, tags
from gateway.domain.audit import Action, Actor, Change
from gateway.domain.ledger import (
    BudgetWarning,
    By,
    ChargeSum,
    Entry,
    EntryKind,
    LedgerLine,
    Reservation,
    Settlement,
    Usage,
)
from gateway.domain.quota import Counters
from gateway.domain.records import RunState
from gateway.store.sql.audit import record
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.ledger_entries import add_warning, forget_users, insert_entry, settle, settlement_of
from gateway.store.sql.locks import Lock
from gateway.store.sql.lookup import find_run
from gateway.store.sql.reservations import read_meters, release
from gateway.store.sql.rows import ENTRIES, RESERVATIONS


class MoneySteps(Connections):
    """Counters, usage, corrections, warnings and reservations."""

    async def meters(self, scopes: Sequence[str], now: float) -> dict[str, Counters]:
        """Return the counters of each scope."""
        return await self._read(lambda db: read_meters(db, scopes, now))

    async def usage(
        self, by: By, *, since: int, until: int, team: str | None = None, tag: str = "", limit: int = 10_000
    ) -> list[Usage]:
        """Sum up the usage of days."""
        window: dict[str, str | int] = {"since": since, "until": until, "limit": limit, "tag": tag}

        def step(db: Database) -> list[Usage]:
            teams = [team] if team is not None else _teams(db)
            return [row for name in teams for row in _usage(db, by, {**window, "team": name})]

        return await self._read(step)

    async def adjust(
        self,
        team: str,
        microusd: int,
        reason: str,
        at: float,
        *,
        actor: Actor,
        adjustment_id: str | None = None,
        key_id: str = "",
        user: str | None = None,
        tagged: str = tags.NONE,
    ) -> bool:
        """Add a correction entry."""
        entry = Entry(
            at=at,
            team=team,
            kind=EntryKind.ADJUSTMENT,
            microusd=microusd,
            reason=reason,
            key_id=key_id,
            user=user,
            scopes=quota.scopes_of_correction(team, key_id, user, tagged),
            adjustment_id=adjustment_id,
            tags=tagged,
        )
        after: dict[str, object] = {"microusd": microusd, "reason": reason, "adjustment": adjustment_id}
        more = {"key": key_id, "user": user, "tags": tags.mapping(tagged)}
        after |= {name: value for name, value in more.items() if value}
        change = Change(action=Action.USAGE_ADJUSTED, subject=team, team=team, after=after)

        def step(db: Database) -> bool:
            is_added = insert_entry(db, entry)
            if is_added:
                record(db, at, actor, change)
            return is_added

        return await self._write(step, durable=True)

    async def spend_of(self, run_id: str) -> Entry | None:
        """Return the entry that settled a run."""
        return await self._read(lambda db: settlement_of(db, run_id))

    async def newest_spend(self, limit: int) -> list[Entry]:
        """List the newest settlements."""
        return await self._read(
            lambda db: [ENTRIES.record(row) for row in db.execute("newest_spend", {"limit": limit})]
        )

    async def lines(self, day: int, *, after: int, limit: int, team: str | None = None) -> list[LedgerLine]:
        """List entries of a day."""
        wanted = {"day": day, "after": after, "limit": limit, "team": team}
        return await self._read(
            lambda db: [LedgerLine(row[0], ENTRIES.record(row[1:])) for row in db.execute("lines_of_day", wanted)]
        )

    async def charges(self, day: int, *, team: str | None = None) -> list[ChargeSum]:
        """Sum up a day's settlements and corrections."""
        wanted = {"day": day, "team": team}
        return await self._read(lambda db: [_charge(day, row) for row in db.execute("charges_of_day", wanted)])

    async def warned(self, team: str, name: str, day: int) -> int:
        """Return the highest percentage of a window's budget warnings."""

        def step(db: Database) -> int:
            ((percent,),) = db.execute("warned", {"team": team, "name": name, "day": day}).fetchall()
            return int(percent)

        return await self._read(step)

    async def warn_once(self, warning: BudgetWarning) -> bool:
        """Record a budget warning; return whether it is new."""
        return await self._write(lambda db: add_warning(db, warning))

    async def unsettled(self, before: float) -> int:
        """Count old reservations."""

        def step(db: Database) -> int:
            ((count,),) = db.execute("unsettled", {"before": before}).fetchall()
            return int(count)

        return await self._read(step)

    async def stuck_reservations(self, limit: int) -> list[Reservation]:
        """List reservations whose run is not in progress."""
        return await self._read(
            lambda db: [RESERVATIONS.record(row) for row in db.execute("stuck_reservations", {"limit": limit})]
        )

    async def free_reservation(self, run_id: str, settlement: Settlement | None) -> bool:
        """Settle a run that has ended, or release the reservation of a run that does not exist."""
        return await self._write(lambda db: _free(db, run_id, settlement), durable=True)

    async def prune_ledger(self, *, lines_before: int, spent_before: int, now: float, limit: int) -> int:
        """Delete old entries, users' names, and counters that no budget needs; at most `limit` rows in all."""

        def step(db: Database) -> int:
            db.lock(Lock.SUMS)
            deleted = db.execute("delete_old_entries", {"before": lines_before, "limit": limit}).rowcount
            deleted += forget_users(db, lines_before, limit - deleted)
            deleted += db.execute("delete_old_spent", {"before": spent_before, "limit": limit - deleted}).rowcount
            old_warnings = {"before": spent_before, "limit": limit - deleted}
            deleted += db.execute("delete_old_warnings", old_warnings).rowcount
            return deleted + db.execute("delete_idle_meters", {"now": now, "limit": limit - deleted}).rowcount

        return await self._write(step, erases=True)


def _charge(day: int, row: tuple[Any, ...]) -> ChargeSum:
    team, key_id, target, kind, tags, note, count, milliseconds, microusd = row
    return ChargeSum(
        day=day,
        team=team,
        key_id=key_id,
        target=target,
        kind=EntryKind(kind),
        tags=tags,
        note=note,
        count=count,
        milliseconds=milliseconds,
        microusd=microusd,
    )


def _teams(db: Database) -> list[str]:
    """List the teams with usage: one index lookup per team instead of a scan of all rows."""
    teams: list[str] = []
    while (team := db.execute("next_team_with_usage", {"after": teams[-1] if teams else ""}).fetchone()[0]) is not None:
        teams.append(team)
    return teams


def _usage(db: Database, by: By, wanted: dict[str, str | int]) -> list[Usage]:
    rows = _rows(db, f"usage_by_{by}", wanted)
    if by is By.TAG and (rest := _untagged(db, wanted)) is not None:
        rows.append(rest)
    return rows


def _untagged(db: Database, wanted: dict[str, str | int]) -> Usage | None:
    """Return what has no value of a tag: all of the team's usage, without that of every value."""
    every, of_values = (_rows(db, query, wanted) for query in ("usage_by_team", "usage_of_tag"))
    if not every:
        return None
    rest = every[0].without(of_values[0]) if of_values else every[0]
    return None if rest == Usage(team=rest.team) else rest


def _rows(db: Database, query: str, wanted: dict[str, str | int]) -> list[Usage]:
    return [Usage(**dict(zip(Usage.__struct_fields__, row, strict=True))) for row in db.execute(query, wanted)]


def _free(db: Database, run_id: str, settlement: Settlement | None) -> bool:
    db.lock(Lock.RUN, run_id)
    run = find_run(db, "run", {"id": run_id})
    if run is not None and run.state in (RunState.INTENDED, RunState.LIVE):
        return False
    if run is None or settlement is None:
        return run is None and release(db, run_id) is not None
    if db.execute("reservation", {"run_id": run_id}).fetchone() is None:
        return False
    settle(db, run_id, settlement)
    return True
