"""The queue of webhook deliveries and the dead letters (the `Deliveries` role).

`queue_ends` and `queue_end` run inside the transactions that end predictions, so a prediction cannot end without its
delivery being queued. A delivery has no body until its first attempt fails: the body is made from the prediction.
"""

import heapq
import operator
import sqlite3
from collections import Counter
from collections.abc import Sequence

import msgspec

from gateway.domain.records import Prediction, PredictionView, Source
from gateway.store.sql.connections import Connections
from gateway.store.sql.queries import SQL
from gateway.store.sql.rows import DELIVERIES, view
from gateway.webhooks.ports import Busy
from gateway.webhooks.rules.deliveries import (
    Delivery,
    DeliveryCounts,
    DeliveryKind,
    DeliveryState,
    message_id,
    receiver_of,
)

_TRIMMED = "the queue was full"


class SQLiteDeliveries(Connections):
    """Queued deliveries and dead letters."""

    async def add_delivery(self, delivery: Delivery, body: bytes) -> None:
        """Queue a delivery with its body."""
        await self._write(lambda db: _add(db, delivery, body), durable=True)

    async def claim_deliveries(self, now: float, until: float, limit: int, busy: Busy) -> list[Delivery]:
        """Claim deliveries that are due."""
        # The search runs on the reading thread, to keep the writing thread free. The write checks each one again.
        found = await self._read(lambda db: _find_due(db, now, limit, busy))
        if not found:
            return []
        return await self._write(lambda db: _hold(db, found, now, until))

    async def release_deliveries(self, delivery_ids: Sequence[str]) -> None:
        """Return claimed deliveries that were not attempted."""

        def step(db: sqlite3.Connection) -> None:
            db.executemany(SQL["release_delivery"], [{"id": each} for each in delivery_ids])

        await self._write(step)

    async def reclaim_deliveries(self) -> int:
        """Release the claims of an earlier process."""
        return await self._write(lambda db: db.execute(SQL["reclaim_deliveries"]).rowcount)

    async def delivery_body(self, delivery_id: str) -> bytes | None:
        """Return a delivery's stored body."""

        def step(db: sqlite3.Connection) -> bytes | None:
            row = db.execute(SQL["delivery_body"], {"id": delivery_id}).fetchone()
            return None if row is None or row[0] is None else bytes(row[0])

        return await self._read(step)

    async def delivered(self, delivery_id: str) -> None:
        """Delete a delivery that the receiver accepted."""

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["delete_delivery"], {"id": delivery_id})

        await self._write(step, erases=True)

    async def postpone_delivery(self, delivery_id: str, next_at: float, error: str, body: bytes) -> None:
        """Schedule the next attempt of a delivery."""
        parameters = {"id": delivery_id, "next_at": next_at, "error": error, "body": body}

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["postpone_delivery"], parameters)

        await self._write(step)

    async def mark_dead(self, delivery_id: str, at: float, error: str, body: bytes) -> None:
        """Make a delivery a dead letter."""
        parameters = {"id": delivery_id, "at": at, "error": error, "body": body}

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["mark_dead"], parameters)

        await self._write(step)

    async def deliveries(
        self, *, team: str | None = None, state: DeliveryState | None = None, after: str = "", limit: int = 500
    ) -> list[Delivery]:
        """List deliveries by id."""
        parameters = {"team": team, "state": None if state is None else state.value, "after": after, "limit": limit}
        return await self._read(
            lambda db: [DELIVERIES.record(row) for row in db.execute(SQL["deliveries"], parameters)]
        )

    async def deliveries_of(self, prediction_id: str, *, limit: int = 100) -> list[Delivery]:
        """List the deliveries of a prediction, oldest first."""
        wanted = {"prediction_id": prediction_id, "limit": limit}
        found = await self._read(
            lambda db: [DELIVERIES.record(row) for row in db.execute(SQL["deliveries_of_prediction"], wanted)]
        )
        return sorted(found, key=lambda each: (each.created_at, each.id))

    async def redeliver(self, now: float, delivery_id: str) -> bool:
        """Make one delivery due at once."""

        def step(db: sqlite3.Connection) -> bool:
            return db.execute(SQL["redeliver_one"], {"now": now, "id": delivery_id}).rowcount > 0

        return await self._write(step)

    async def redeliver_all(self, now: float, *, team: str | None = None, dead_only: bool = True) -> int:
        """Make deliveries due at once."""
        statements = ["redeliver_dead"] if dead_only else ["redeliver_queued", "redeliver_dead"]
        parameters = {"now": now, "team": team}
        return await self._write(lambda db: sum(db.execute(SQL[each], parameters).rowcount for each in statements))

    async def delivery_counts(self) -> DeliveryCounts:
        """Count queued deliveries and dead letters."""
        return await self._read(_count)

    async def trim_deliveries(self, max_queued: int, max_dead: int, now: float, limit: int = 500) -> int:
        """Drop the oldest deliveries and dead letters over the limits."""
        return await self._write(lambda db: _trim(db, max_queued, max_dead, now, limit), erases=True)

    async def delete_dead_deliveries(self, before: float, limit: int) -> int:
        """Delete old dead letters."""
        parameters = {"before": before, "limit": limit}
        return await self._write(lambda db: db.execute(SQL["delete_dead_deliveries"], parameters).rowcount, erases=True)

    async def awaiting_webhooks(self, *, after: str = "", limit: int = 500) -> list[PredictionView]:
        """List the predictions of runs in progress that have a webhook."""

        def step(db: sqlite3.Connection) -> list[PredictionView]:
            found = (view(row) for row in db.execute(SQL["awaiting_webhooks"], {"after": after}))
            return heapq.nsmallest(limit, found, key=operator.attrgetter("prediction.id"))

        return await self._read(step)


def queue_ends(db: sqlite3.Connection, run_id: str, at: float, *, source: Source | None = None) -> None:
    """Queue a delivery for each prediction of an ended run that has a webhook; only those of `source` if given."""
    rows = db.execute(SQL["predictions_with_webhook"], {"run_id": run_id}).fetchall()
    for prediction_id, team, url, row_source in rows:
        if source is None or row_source == source.value:
            _add(db, _end(prediction_id, run_id, team, url, at), None)


def queue_end(db: sqlite3.Connection, prediction: Prediction, at: float) -> None:
    """Queue a delivery for the end of one prediction, if it has a webhook."""
    if prediction.webhook is not None:
        _add(db, _end(prediction.id, prediction.run_id, prediction.team, prediction.webhook, at), None)


def forget_end(db: sqlite3.Connection, prediction_id: str) -> None:
    """Delete the queued delivery for a prediction's end."""
    db.execute(SQL["delete_delivery"], {"id": message_id(prediction_id)})


def _end(prediction_id: str, run_id: str, team: str, url: str, at: float) -> Delivery:
    return Delivery(
        id=message_id(prediction_id),
        kind=DeliveryKind.PREDICTION,
        team=team,
        url=url,
        receiver=receiver_of(url),
        prediction_id=prediction_id,
        run_id=run_id,
        created_at=at,
    )


def _add(db: sqlite3.Connection, delivery: Delivery, body: bytes | None) -> None:
    db.execute(SQL["add_delivery"], (*DELIVERIES.row(delivery), body))


def _find_due(db: sqlite3.Connection, now: float, limit: int, busy: Busy) -> list[str]:
    parameters = {
        "now": now,
        "receivers": msgspec.json.encode(busy.receivers).decode(),
        "teams": msgspec.json.encode(busy.teams).decode(),
    }
    found: list[str] = []
    taken: Counter[str] = Counter()
    for delivery_id, receiver in db.execute(SQL["deliveries_due"], parameters):
        if taken[receiver] >= busy.per_receiver:
            continue
        taken[receiver] += 1
        found.append(delivery_id)
        if len(found) == limit:
            break
    return found


def _hold(db: sqlite3.Connection, found: Sequence[str], now: float, until: float) -> list[Delivery]:
    held: list[Delivery] = []
    for delivery_id in found:
        rows = db.execute(SQL["hold_delivery"], {"id": delivery_id, "now": now, "until": until}).fetchall()
        held += [DELIVERIES.record(row) for row in rows]
    return held


def _count(db: sqlite3.Connection) -> DeliveryCounts:
    queued, oldest_queued_at = db.execute(SQL["queued_deliveries"]).fetchone()
    (dead,) = db.execute(SQL["dead_deliveries"]).fetchone()
    return DeliveryCounts(queued, dead, oldest_queued_at)


def _trim(db: sqlite3.Connection, max_queued: int, max_dead: int, now: float, limit: int) -> int:
    counts = _count(db)
    given_up = deleted = 0
    if (excess := min(limit, counts.queued - max_queued)) > 0:
        given_up = db.execute(SQL["mark_oldest_dead"], {"now": now, "error": _TRIMMED, "limit": excess}).rowcount
    if (excess := min(limit, counts.dead + given_up - max_dead)) > 0:
        deleted = db.execute(SQL["delete_oldest_dead"], {"limit": excess}).rowcount
    return given_up + deleted
