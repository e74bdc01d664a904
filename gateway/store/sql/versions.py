"""The map from version to model (the `Versions` role)."""

from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database


class VersionSteps(Connections):
    """The model of each known version."""

    async def learn_version(self, version: str, model: str) -> None:
        """Record a version's model, unless one is recorded already."""

        def step(db: Database) -> None:
            db.execute("learn_version", {"version": version, "model": model})

        await self._write(step)

    async def model_of(self, version: str) -> str | None:
        """Return the model of a version; `None` if it is unknown."""
        return await self._read(lambda db: model_of(db, version))


def model_of(db: Database, version: str) -> str | None:
    """Return the model of a version; `None` if it is unknown."""
    row = db.execute("model_of", {"version": version}).fetchone()
    return None if row is None else str(row[0])
