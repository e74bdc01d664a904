"""The gateway's own secrets (the `Secrets` role)."""

from gateway.domain import times
from gateway.domain.audit import Action, Actor, Change
from gateway.store.sql.audit import record
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock


class SecretSteps(Connections):
    """Secrets by name. The first proposed value becomes the secret. The command line can rotate them meanwhile."""

    async def secret(self, name: str, proposal: bytes) -> bytes:
        """Return the secret of a name; create it from `proposal` if there is none."""

        def step(db: Database) -> bytes:
            db.execute("propose_secret", {"name": name, "proposal": proposal})
            return bytes(db.execute("secret", {"name": name}).fetchone()[0])

        return await self._write(step, durable=True)

    async def rotate_secret(
        self, name: str, successor: bytes, now: float, until: float, *, team: str, actor: Actor
    ) -> int:
        """Replace a secret; return how many secrets are in use."""
        after = {"old_secrets_until": times.render(until)}
        change = Change(action=Action.WEBHOOK_SECRET_ROTATED, subject=team, team=team, after=after)

        def step(db: Database) -> int:
            db.lock(Lock.NAMES, name)
            db.execute("delete_old_secrets", {"name": name, "now": now})
            db.execute("retire_secret", {"name": name, "now": now, "until": until})
            db.execute("set_secret", {"name": name, "secret": successor})
            record(db, now, actor, change)
            return len(_in_use(db, name, now))

        return await self._write(step, durable=True, erases=True)

    async def secrets_in_use(self, name: str, now: float) -> list[bytes]:
        """Return the secrets in use, newest first."""
        return await self._read(lambda db: _in_use(db, name, now))


def _in_use(db: Database, name: str, now: float) -> list[bytes]:
    newest = db.execute("secret", {"name": name}).fetchall()
    older = db.execute("old_secrets", {"name": name, "now": now}).fetchall()
    return [bytes(secret) for (secret,) in (*newest, *older)]
