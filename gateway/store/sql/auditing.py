"""The sums of the ledger, compared with its lines and made anew from them (the `Ledger` role)."""

import sqlite3
from collections.abc import Mapping

import msgspec

from gateway.domain.ledger import OTHER
from gateway.money.rules.audit import Audited, ByModel, ByUser, StoredSums
from gateway.store.sql.connections import Connections
from gateway.store.sql.ledger_entries import count_user
from gateway.store.sql.queries import SQL

_read_scopes = msgspec.json.Decoder(tuple[str, ...]).decode
_SUMS = ("runs", "joined", "hits", "milliseconds", "microusd", "saved_microusd")


class SQLiteAuditing(Connections):
    """What holds the sums to the lines."""

    async def audit_day(self, day: int, after: int, limit: int) -> Audited:
        """Sum up some lines of a day."""
        return await self._read(lambda db: _audit(db, day, after, limit))

    async def rebuild_day(self, day: int) -> None:
        """Make every sum of a day anew."""
        await self._write(lambda db: _rebuild(db, day), durable=True)

    async def recount_meters(self) -> int:
        """Compare what is held with the reservations, and correct it."""
        if await self._read(_miscounted) == 0:
            return 0
        return await self._write(_recount, durable=True)


def _audit(db: sqlite3.Connection, day: int, after: int, limit: int) -> Audited:
    ids = [line for (line,) in db.execute(SQL["entries_of_day"], {"day": day, "after": after, "limit": limit})]
    last = ids[-1] if ids else after
    stretch = {"day": day, "after": after, "last": last, "other": OTHER}
    return Audited(
        last=last,
        lines=len(ids),
        by_model=_by_model(db, "audited_days", stretch),
        by_user=_by_user(db, "audited_users", stretch),
        spent=_spent(db, stretch),
        stored=_stored(db, day) if len(ids) < limit else None,
    )


def _spent(db: sqlite3.Connection, wanted: Mapping[str, str | int]) -> dict[tuple[str, ...], tuple[int, int]]:
    rows = db.execute(SQL["audited_spent"], wanted)
    return {_read_scopes(scopes): (milliseconds, microusd) for scopes, milliseconds, microusd in rows}


def _stored(db: sqlite3.Connection, day: int) -> StoredSums:
    of_day = {"day": day}
    spent = {
        scope: (milliseconds, microusd) for scope, milliseconds, microusd in db.execute(SQL["booked_spent"], of_day)
    }
    return StoredSums(_by_model(db, "booked_days", of_day), _by_user(db, "booked_users", of_day), spent)


def _by_model(db: sqlite3.Connection, query: str, wanted: Mapping[str, str | int]) -> ByModel:
    return {(team, key_id, target): tuple(sums) for team, key_id, target, *sums in db.execute(SQL[query], wanted)}


def _by_user(db: sqlite3.Connection, query: str, wanted: Mapping[str, str | int]) -> ByUser:
    return {(team, user): tuple(sums) for team, user, *sums in db.execute(SQL[query], wanted)}


def _rebuild(db: sqlite3.Connection, day: int) -> None:
    of_day = {"day": day}
    for forget in ("forget_usage_days", "forget_usage_users", "forget_spent"):
        db.execute(SQL[forget], of_day)
    db.execute(SQL["rebuild_days"], of_day)
    for team, user, *sums in db.execute(SQL["rebuild_users"], of_day).fetchall():
        count_user(db, day, team, user, dict(zip(_SUMS, sums, strict=True)))
    for scopes, milliseconds, microusd in db.execute(SQL["rebuild_spent"], of_day).fetchall():
        for scope in _read_scopes(scopes):
            db.execute(SQL["spend"], {"scope": scope, "day": day, "milliseconds": milliseconds, "microusd": microusd})


def _miscounted(db: sqlite3.Connection) -> int:
    held = {scope: amounts for scope, *amounts in db.execute(SQL["held_by_scope"])}
    counted = {scope: amounts for scope, *amounts in db.execute(SQL["meters_in_use"])}
    return sum(held.get(scope) != counted.get(scope) for scope in {**held, **counted})


def _recount(db: sqlite3.Connection) -> int:
    wrong = _miscounted(db)
    db.execute(SQL["empty_meters"])
    for scope, count, milliseconds, microusd in db.execute(SQL["held_by_scope"]).fetchall():
        move = {"open": count, "milliseconds": milliseconds, "microusd": microusd, "full_at": 0.0, "takes": False}
        db.execute(SQL["move_meter"], {"scope": scope, **move})
    return wrong
