"""Compare the ledger's sums with its entries, and rebuild them (part of the `Ledger` role)."""

import sys
from collections.abc import Mapping

import msgspec

from gateway.domain.ledger import OTHER, OTHER_VALUES
from gateway.money.rules.audit import Audited, ByModel, ByTag, ByUser, StoredSums
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.ledger_entries import count_tags, count_users
from gateway.store.sql.locks import Lock

_read_scopes = msgspec.json.Decoder(tuple[str, ...]).decode
_SUMS = ("runs", "joined", "hits", "milliseconds", "microusd", "saved_microusd")


class AuditingSteps(Connections):
    """Audits and repairs the ledger's sums."""

    async def audit_day(self, day: int, after: int, limit: int) -> Audited:
        """Sum up at most `limit` entries of a day."""
        newest = await self._write(_newest_line) if self._is_shared else sys.maxsize
        return await self._read(lambda db: _audit(db, day, after, limit, newest))

    async def rebuild_day(self, day: int) -> None:
        """Recompute every sum of a day from its entries."""
        await self._write(lambda db: _rebuild(db, day), durable=True)

    async def recount_meters(self) -> int:
        """Compare the held amounts with the reservations and correct them."""
        if await self._read(_count_differing) == 0:
            return 0
        return await self._write(_recount, durable=True)


def _newest_line(db: Database) -> int:
    """Return the id of the newest line. No line with a lower one will still be committed."""
    db.lock(Lock.LEDGER)
    ((newest,),) = db.execute("newest_line").fetchall()
    return int(newest)


def _audit(db: Database, day: int, after: int, limit: int, newest: int) -> Audited:
    ids = [entry for (entry,) in db.execute("entries_of_day", {"day": day, "after": after, "limit": limit})]
    is_end = len(ids) < limit
    if not is_end:
        # The next batch begins after the last of this one, where no other line may come up later.
        ids = [entry for entry in ids if entry <= newest]
    last = ids[-1] if ids else after
    step = {"day": day, "after": after, "last": last, "other": OTHER, "other_values": OTHER_VALUES}
    return Audited(
        last=last,
        lines=len(ids),
        by_model=_by_model(db, "audited_days", step),
        by_user=_by_user(db, "audited_users", step),
        by_tag=_by_tag(db, "audited_tags", step),
        spent=_spent(db, step),
        stored=_stored(db, day) if is_end else None,
    )


def _spent(db: Database, wanted: Mapping[str, str | int]) -> dict[tuple[str, ...], tuple[int, int]]:
    rows = db.execute("audited_spent", wanted)
    return {_read_scopes(scopes): (milliseconds, microusd) for scopes, milliseconds, microusd in rows}


def _stored(db: Database, day: int) -> StoredSums:
    of_day = {"day": day}
    spent = {scope: (milliseconds, microusd) for scope, milliseconds, microusd in db.execute("stored_spent", of_day)}
    return StoredSums(
        by_model=_by_model(db, "stored_days", of_day),
        by_user=_by_user(db, "stored_users", of_day),
        by_tag=_by_tag(db, "stored_tags", of_day),
        spent=spent,
    )


def _by_model(db: Database, query: str, wanted: Mapping[str, str | int]) -> ByModel:
    return {(team, key_id, target): tuple(sums) for team, key_id, target, *sums in db.execute(query, wanted)}


def _by_user(db: Database, query: str, wanted: Mapping[str, str | int]) -> ByUser:
    return {(team, user): tuple(sums) for team, user, *sums in db.execute(query, wanted)}


def _by_tag(db: Database, query: str, wanted: Mapping[str, str | int]) -> ByTag:
    return {(team, tag, value): tuple(sums) for team, tag, value, *sums in db.execute(query, wanted)}


def _rebuild(db: Database, day: int) -> None:
    db.lock(Lock.SUMS)
    of_day = {"day": day}
    for delete in ("delete_usage_days", "delete_usage_users", "delete_usage_tags", "delete_spent"):
        db.execute(delete, of_day)
    db.execute("rebuild_days", of_day)
    # At once: on a server, each statement of its own takes a trip.
    users = db.execute("rebuild_users", of_day).fetchall()
    count_users(db, day, [(team, user, dict(zip(_SUMS, sums, strict=True))) for team, user, *sums in users])
    tags = db.execute("rebuild_tags", of_day).fetchall()
    count_tags(db, [((team, tag, day, value), dict(zip(_SUMS, sums, strict=True))) for team, tag, value, *sums in tags])
    db.executemany(
        "spend",
        [
            {"scope": scope, "day": day, "milliseconds": milliseconds, "microusd": microusd}
            for scopes, milliseconds, microusd in db.execute("rebuild_spent", of_day).fetchall()
            for scope in _read_scopes(scopes)
        ],
    )


def _count_differing(db: Database) -> int:
    held = {scope: amounts for scope, *amounts in db.execute("held_by_scope")}
    counted = {scope: amounts for scope, *amounts in db.execute("meters_in_use")}
    return sum(held.get(scope) != counted.get(scope) for scope in {**held, **counted})


def _recount(db: Database) -> int:
    db.lock(Lock.RESERVATIONS)
    wrong = _count_differing(db)
    db.execute("clear_meters")
    for scope, count, milliseconds, microusd in db.execute("held_by_scope").fetchall():
        change = {"open": count, "milliseconds": milliseconds, "microusd": microusd, "full_at": 0.0, "takes": False}
        db.execute("change_meter", {"scope": scope, **change})
    return wrong
