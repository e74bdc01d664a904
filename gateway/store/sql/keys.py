"""API keys that are created at run time (the `Keys` role)."""

from gateway.access.rules.key_changes import created, revoked, rotated
from gateway.domain.audit import Actor
from gateway.domain.records import Key
from gateway.errors import Conflict
from gateway.nodes.news import Topic
from gateway.store.sql.audit import record
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock
from gateway.store.sql.rows import KEYS


class KeySteps(Connections):
    """API keys that are created at run time. The command line writes them from another process."""

    async def add_key(self, key: Key, *, actor: Actor) -> None:
        """Add a key."""

        def step(db: Database) -> None:
            db.lock(Lock.NAMES, key.team)
            if db.execute("key_taken", {"id": key.id, "team": key.team, "name": key.name}).fetchone():
                raise Conflict(f"Team {key.team} already has a key named {key.name}.")
            db.execute("add_key", KEYS.row(key))
            record(db, key.created_at, actor, created(key))
            db.tell(Topic.KEY, key.id)

        await self._write(step, durable=True)

    async def key(self, key_id: str) -> Key | None:
        """Return a key by its id."""
        return await self._read(lambda db: _key(db, key_id))

    async def keys(self, team: str | None = None) -> list[Key]:
        """List keys by team and creation time."""

        def step(db: Database) -> list[Key]:
            rows = db.execute("keys_of_all") if team is None else db.execute("keys_of_team", {"team": team})
            return [KEYS.record(row) for row in rows]

        return await self._read(step)

    async def revoke_key(self, key_id: str, at: float, *, actor: Actor) -> Key | None:
        """Revoke a key."""

        def step(db: Database) -> Key | None:
            rows = db.execute("revoke_key", {"id": key_id, "at": at}).fetchall()
            if not rows:
                return _key(db, key_id)
            key = KEYS.record(rows[0])
            record(db, at, actor, revoked(key))
            db.tell(Topic.KEY, key_id)
            return key

        return await self._write(step, durable=True)

    async def rotate_key(self, key_id: str, successor: Key, expires_at: float, *, actor: Actor) -> Key | None:
        """Add a key's successor and set the expiry of the old key."""

        def step(db: Database) -> Key | None:
            db.lock(Lock.NAMES, successor.team)
            old = _key(db, key_id)
            if old is None or old.revoked_at is not None:
                return None
            # A successor can have the old key's name while both are valid; any other name must be free.
            is_renamed = (successor.team, successor.name) != (old.team, old.name)
            name = successor.name if is_renamed else None
            if db.execute("key_taken", {"id": successor.id, "team": successor.team, "name": name}).fetchone():
                raise Conflict(f"Team {successor.team} already has a key with this name.")
            db.execute("add_key", KEYS.row(successor))
            (row,) = db.execute("expire_key", {"id": key_id, "expires_at": expires_at}).fetchall()
            expired = KEYS.record(row)
            record(db, successor.created_at, actor, rotated(old, expired, successor))
            db.tell(Topic.KEY, successor.id)
            db.tell(Topic.KEY, key_id)
            return expired

        return await self._write(step, durable=True)


def _key(db: Database, key_id: str) -> Key | None:
    row = db.execute("key", {"id": key_id}).fetchone()
    return None if row is None else KEYS.record(row)
