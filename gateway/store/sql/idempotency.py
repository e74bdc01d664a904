"""Idempotency keys: a team's name for a request, and the prediction that the request created.

A key is deleted with its prediction, so no key points to a prediction that does not exist.
"""

from gateway.domain.records import LARGE_DOCUMENT, RunState
from gateway.predictions.ports.sharing import Idempotency, Mismatched, Pending, Replayed
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock
from gateway.store.sql.lookup import find_view


class IdempotencySteps(Connections):
    """Keys by team and name."""

    async def delete_expired_idempotency(self, before: float, limit: int) -> int:
        """Delete expired keys."""

        def step(db: Database) -> int:
            return db.execute("delete_expired_idempotency", {"before": before, "limit": limit}).rowcount

        return await self._write(step, erases=True)


def first_request(
    db: Database, team: str, idempotency: Idempotency, now: float
) -> Replayed | Pending | Mismatched | None:
    """Return the outcome of a request whose key is known; `None` if the key is not known."""
    db.lock(Lock.IDEMPOTENCY_KEY, f"{team} {idempotency.key}")
    row = db.execute("idempotency_key", {"team": team, "key": idempotency.key, "now": now}).fetchone()
    if row is None:
        return None
    body_digest, prediction_id = row
    if not idempotency.is_of(body_digest):
        return Mismatched()
    first = find_view(db, "prediction", {"id": prediction_id}, LARGE_DOCUMENT)
    if first is None:
        return None
    run = first.run
    # A run whose end is known still has no id to show until its create is recorded.
    if run.state is RunState.INTENDED or (run.upstream_id is None and prediction_id == run.leader_id):
        return Pending()
    return Replayed(first)


def remember(db: Database, team: str, idempotency: Idempotency, prediction_id: str) -> None:
    """Store a key with the prediction of its first request."""
    db.execute(
        "remember_key",
        {
            "team": team,
            "key": idempotency.key,
            "body_digest": idempotency.body_digest,
            "expires_at": idempotency.expires_at,
            "prediction_id": prediction_id,
        },
    )
