"""Idempotency keys: a name that a team gave to a request, and the prediction that came of it.

A key is forgotten with its prediction, so that none ever points to nothing.
"""

import sqlite3

from gateway.domain.records import Begun, Idempotency, Outcome, RunState
from gateway.store.sql.connections import Connections
from gateway.store.sql.lookup import find_sight
from gateway.store.sql.queries import SQL


class SQLiteIdempotency(Connections):
    """Keys by team and name."""

    async def delete_expired_idempotency(self, before: float, limit: int) -> int:
        """Forget expired keys."""

        def step(db: sqlite3.Connection) -> int:
            return db.execute(SQL["delete_expired_idempotency"], {"before": before, "limit": limit}).rowcount

        return await self._write(step, erases=True)


def first_request(db: sqlite3.Connection, team: str, idempotency: Idempotency, now: float) -> Begun | None:
    """Say what a request that bears a known key comes to; `None` if the key is not known."""
    row = db.execute(SQL["idempotency_key"], {"team": team, "key": idempotency.key, "now": now}).fetchone()
    if row is None:
        return None
    body_sha256, prediction_id = row
    if body_sha256 != idempotency.body_sha256:
        return Begun(Outcome.MISMATCHED)
    seen = find_sight(db, "prediction", {"id": prediction_id})
    if seen is None:
        return None
    run = seen.run
    # Even a run whose end was heard of has no id to show until its create is recorded.
    if run.state is RunState.INTENDED or (run.upstream_id is None and prediction_id == run.leader_id):
        return Begun(Outcome.PENDING)
    return Begun(Outcome.REPLAYED, seen.prediction, run)


def remember(db: sqlite3.Connection, team: str, idempotency: Idempotency, prediction_id: str) -> None:
    """Keep a key with the prediction that its first request got."""
    db.execute(
        SQL["remember_key"],
        {
            "team": team,
            "key": idempotency.key,
            "body_sha256": idempotency.body_sha256,
            "expires_at": idempotency.expires_at,
            "prediction_id": prediction_id,
        },
    )
