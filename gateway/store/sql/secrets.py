"""The gateway's own secrets (the `Secrets` role)."""

import sqlite3

from gateway.store.sql.lanes import Lanes
from gateway.store.sql.queries import SQL


class SQLiteSecrets(Lanes):
    """Secrets by name; the first proposal becomes the secret."""

    async def secret(self, name: str, proposal: bytes) -> bytes:
        """Return the secret of a name."""

        def step(db: sqlite3.Connection) -> bytes:
            db.execute(SQL["propose_secret"], {"name": name, "proposal": proposal})
            return bytes(db.execute(SQL["secret"], {"name": name}).fetchone()[0])

        return await self._write(step, durable=True)
