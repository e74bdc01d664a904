"""API keys that are created at run time (the `Keys` role)."""

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec

from gateway.access.rules.key_changes import changed, created, revoked, rotated
from gateway.domain.audit import Actor
from gateway.domain.ports.records import KeyPlace
from gateway.domain.records import Key
from gateway.errors import Conflict
from gateway.nodes.news import Topic
from gateway.store.sql.audit import record
from gateway.store.sql.connections import Connections, Lane
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock
from gateway.store.sql.rows import KEYS

_RIGHTS = ("team", "scopes", "models", "origins", "allowance")


class KeySteps(Connections):
    """API keys that are created at run time. The command line writes them from another process."""

    async def add_key(self, key: Key, *, actor: Actor, most: int | None = None, holder: Key | None = None) -> None:
        """Add a key."""

        def step(db: Database) -> None:
            db.lock(Lock.NAMES, key.team)
            _check_holder(db, holder)
            if db.execute("key_taken", {"id": key.id, "team": key.team, "name": key.name}).fetchone():
                raise Conflict(f"Team {key.team} already has a key named {key.name}.")
            _check_number(db, key, most)
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

    async def newest_keys(
        self, *, team: str | None, created_by: str | None = None, limit: int, older_than: KeyPlace | None = None
    ) -> list[Key]:
        """List keys, newest first."""
        older_at, older_key = older_than or (math.inf, "")
        wanted = {"team": team, "older_at": older_at, "older_key": older_key, "limit": limit}
        if created_by is not None:
            name, wanted = "newest_keys_of_creator", wanted | {"created_by": created_by}
        else:
            name = "newest_keys" if team is None else "newest_keys_of_team"
        return await self._read(lambda db: [KEYS.record(row) for row in db.execute(name, wanted)])

    async def valid_keys_of(self, creator: str, now: float) -> int:
        """Count the valid keys of a creator."""
        wanted = {"created_by": creator, "now": now}
        return await self._read(lambda db: int(db.execute("valid_keys_of_creator", wanted).fetchall()[0][0]))

    async def change_key(
        self,
        key_id: str,
        team: str | None,
        change: Callable[[Key], Key],
        at: float,
        *,
        actor: Actor,
        holder: Key | None = None,
    ) -> Key | None:
        """Replace a key by what `change` makes of it."""

        def step(db: Database) -> Key | None:
            old = _key(db, key_id)
            if old is None or team not in (None, old.team):
                return None
            db.lock(Lock.NAMES, old.team)
            _check_holder(db, holder)
            old = _key(db, key_id)
            assert old is not None
            new = change(old)
            if old.revoked_at is not None:
                raise Conflict(f"The key {old.id} was revoked.")
            if new == old:
                return old
            if (
                new.name != old.name
                and db.execute("key_taken", {"id": "", "team": old.team, "name": new.name}).fetchone()
            ):
                raise Conflict(f"Team {old.team} already has a key named {new.name}.")
            rows = db.execute("change_key", dict(zip(KEYS.columns, KEYS.row(new), strict=True))).fetchall()
            if not rows:
                raise Conflict(f"The key {old.id} was revoked.")
            key = KEYS.record(rows[0])
            record(db, at, actor, changed(old, key))
            db.tell(Topic.KEY, key_id)
            return key

        return await self._write(step, durable=True)

    async def use_keys(self, uses: Mapping[str, float]) -> None:
        """Record when keys were last used."""
        # In order, so that nodes do not wait for each other.
        used = [{"key_id": key_id, "used_at": at} for key_id, at in sorted(uses.items())]
        await self._write(lambda db: db.executemany("use_key", used).close(), lane=Lane.PROGRESS)

    async def key_uses(self, key_ids: Sequence[str]) -> dict[str, float]:
        """Return when keys were last used."""
        wanted = {"ids": msgspec.json.encode(list(key_ids)).decode()}
        return await self._read(lambda db: dict(db.execute("key_uses", wanted).fetchall()))

    async def delete_old_keys(self, before: float, limit: int) -> int:
        """Delete old keys."""
        wanted = {"before": before, "limit": limit}

        def step(db: Database) -> int:
            db.execute("delete_old_key_uses", wanted)
            return db.execute("delete_old_keys", wanted).rowcount

        return await self._write(step)

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

    async def rotate_key(
        self,
        key_id: str,
        successor: Key,
        expires_at: float,
        *,
        actor: Actor,
        most: int | None = None,
        holder: Key | None = None,
    ) -> Key | None:
        """Add a key's successor and set the expiry of the old key."""

        def step(db: Database) -> Key | None:
            db.lock(Lock.NAMES, successor.team)
            _check_holder(db, holder)
            old = _key(db, key_id)
            if old is None or old.revoked_at is not None:
                return None
            if [getattr(old, name) for name in _RIGHTS] != [getattr(successor, name) for name in _RIGHTS]:
                raise Conflict(f"The key {key_id} was changed meanwhile. Try again.")
            # During the overlap both are valid, so a team with all its keys can rotate each of them once.
            _check_number(db, successor, None if most is None else 2 * most)
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


def _check_holder(db: Database, holder: Key | None) -> None:
    """Raise `Conflict` if the key whose holder asks has changed since its rights were checked."""
    if holder is not None and _key(db, holder.id) != holder:
        raise Conflict("Your key was changed meanwhile. Try again.")


def _check_number(db: Database, key: Key, most: int | None) -> None:
    """Raise `Conflict` if the team of a new key has `most` valid ones."""
    if most is None:
        return
    ((valid,),) = db.execute("valid_keys_of_team", {"team": key.team, "now": key.created_at}).fetchall()
    if valid >= most:
        raise Conflict(f"Team {key.team} has {valid} valid keys already. Revoke some.")


def _key(db: Database, key_id: str) -> Key | None:
    row = db.execute("key", {"id": key_id}).fetchone()
    return None if row is None else KEYS.record(row)
