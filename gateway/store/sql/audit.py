"""The audit log (the `AuditLog` role). A step that changes something calls `record`: the entry is part of it."""

import math

from gateway.access.rules.audit_text import LONGEST_NAME, clean_text, from_json, to_json
from gateway.domain.audit import (
    BY_CONFIG,
    Action,
    Actor,
    AuditEntry,
    AuditFilter,
    AuditPage,
    AuditPlace,
    Change,
    Values,
)
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock
from gateway.store.sql.rows import Row

_CONFIG = "config"
_NEWEST = 2**62


def record(db: Database, at: float, actor: Actor, change: Change) -> None:
    """Record a change. Call it in the step that makes it, and only if something changes."""
    db.execute("add_audit_entry", columns_of(at, actor, change))


def columns_of(at: float, actor: Actor, change: Change) -> dict[str, object]:
    """Return the entry of a change, by the columns of the table."""
    return {
        "at": at,
        "actor": clean_text(actor, LONGEST_NAME),
        "action": change.action.value,
        "subject": clean_text(change.subject, LONGEST_NAME),
        "team": change.team,
        "before_values": to_json(change.before),
        "after_values": to_json(change.after),
        "operation": change.operation,
    }


class AuditLogSteps(Connections):
    """Reads the audit log and deletes old entries. Other steps write it."""

    async def audit_entries(self, which: AuditFilter, *, limit: int, older_than: AuditPlace | None = None) -> AuditPage:
        """List entries, newest first."""
        statement = "audit_entries" if which.team is None else "audit_entries_of_team"
        older_at, older_id = older_than or (math.inf, _NEWEST)
        wanted = {
            "team": which.team,
            "actor": which.actor,
            "action": which.action,
            "subject": which.subject,
            "since": -math.inf if which.since is None else which.since,
            "until": math.inf if which.until is None else which.until,
            "older_at": older_at,
            "older_id": older_id,
            "limit": limit + 1,
        }
        found = await self._read(lambda db: [_entry(row) for row in db.execute(statement, wanted)])
        return AuditPage(entries=found[:limit], has_more=len(found) > limit)

    async def record_config(self, digest: str, before: Values, after: Values, at: float) -> bool:
        """Record that a config took effect, unless the newest such entry is of the same config."""
        subject = f"{_CONFIG}:{digest}"
        change = Change(action=Action.CONFIG_LOADED, subject=subject, before=before or None, after=after or None)

        def step(db: Database) -> bool:
            db.lock(Lock.NAMES, _CONFIG)
            newest = db.execute("newest_subject", {"action": change.action.value}).fetchone()
            if newest == (change.subject,):
                return False
            record(db, at, BY_CONFIG, change)
            return True

        return await self._write(step, durable=True)

    async def delete_old_audit_entries(self, before: float, limit: int) -> int:
        """Delete old entries."""
        wanted = {"before": before, "limit": limit}
        return await self._write(lambda db: db.execute("delete_old_audit_entries", wanted).rowcount, erases=True)


def _entry(row: Row) -> AuditEntry:
    number, at, actor, action, subject, team, before, after = row
    return AuditEntry(
        id=number,
        at=float(at),
        actor=actor,
        action=action,
        subject=subject,
        team=team,
        before=from_json(before),
        after=from_json(after),
    )
