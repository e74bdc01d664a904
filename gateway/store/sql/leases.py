"""Ownership of work (the `Leases` role)."""

import sqlite3

from gateway.store.sql.connections import Connections
from gateway.store.sql.queries import SQL


class SQLiteLeases(Connections):
    """Leases by name, each with an owner and an end."""

    async def acquire_lease(self, name: str, owner: str, now: float, until: float) -> bool:
        """Take or renew a lease."""
        wish = {"name": name, "owner": owner, "now": now, "until": until}

        def step(db: sqlite3.Connection) -> bool:
            return bool(db.execute(SQL["acquire_lease"], wish).fetchall())

        return await self._write(step)

    async def release_lease(self, name: str, owner: str) -> None:
        """Give a lease back."""

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["release_lease"], {"name": name, "owner": owner})

        await self._write(step)
