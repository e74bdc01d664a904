"""The map from version to model (the `Versions` role)."""

import sqlite3

from gateway.store.sql.connections import Connections
from gateway.store.sql.queries import SQL


class SQLiteVersions(Connections):
    """Which model a version is of."""

    async def learn_version(self, version: str, model: str) -> None:
        """Remember a version's model; the first word stands."""

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["learn_version"], {"version": version, "model": model})

        await self._write(step)

    async def model_of(self, version: str) -> str | None:
        """Name the model of a version."""

        def step(db: sqlite3.Connection) -> str | None:
            row = db.execute(SQL["model_of"], {"version": version}).fetchone()
            return None if row is None else str(row[0])

        return await self._read(step)
