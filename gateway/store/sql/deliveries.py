"""Messages that must arrive (the `Deliveries` role), and how the ends of predictions get into the queue.

`queue_ends` and `queue_end` are called inside of the steps that end predictions: what is over and what is to be told
are one transaction. A message that was never tried has no body; the records of its prediction have it.
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
    """Messages in their queue, and dead letters."""

    async def add_delivery(self, delivery: Delivery, body: bytes) -> None:
        """Queue a message with its body."""
        await self._write(lambda db: _add(db, delivery, body), durable=True)

    async def claim_deliveries(self, now: float, until: float, limit: int, busy: Busy) -> list[Delivery]:
        """Hand out messages that are due."""
        # What is looked for among all of them is read by the reading thread; the step looks again.
        found = await self._read(lambda db: _find_due(db, now, limit, busy))
        if not found:
            return []
        return await self._write(lambda db: _hold(db, found, now, until))

    async def release_deliveries(self, delivery_ids: Sequence[str]) -> None:
        """Give back messages that were not tried."""

        def step(db: sqlite3.Connection) -> None:
            db.executemany(SQL["release_delivery"], [{"id": each} for each in delivery_ids])

        await self._write(step)

    async def reclaim_deliveries(self) -> int:
        """Let what an earlier process held be handed out again."""
        return await self._write(lambda db: db.execute(SQL["reclaim_deliveries"]).rowcount)

    async def delivery_body(self, delivery_id: str) -> bytes | None:
        """Return the body that is kept with a message."""

        def step(db: sqlite3.Connection) -> bytes | None:
            row = db.execute(SQL["delivery_body"], {"id": delivery_id}).fetchone()
            return None if row is None or row[0] is None else bytes(row[0])

        return await self._read(step)

    async def delivered(self, delivery_id: str) -> None:
        """Forget a message that was taken."""

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["delete_delivery"], {"id": delivery_id})

        await self._write(step, erases=True)

    async def postpone_delivery(self, delivery_id: str, next_at: float, error: str, body: bytes) -> None:
        """Keep a message for a later try."""
        parameters = {"id": delivery_id, "next_at": next_at, "error": error, "body": body}

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["postpone_delivery"], parameters)

        await self._write(step)

    async def bury_delivery(self, delivery_id: str, at: float, error: str, body: bytes) -> None:
        """Make a message a dead letter."""
        parameters = {"id": delivery_id, "at": at, "error": error, "body": body}

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["bury_delivery"], parameters)

        await self._write(step)

    async def deliveries(
        self, *, team: str | None = None, state: DeliveryState | None = None, after: str = "", limit: int = 500
    ) -> list[Delivery]:
        """List messages by id."""
        parameters = {"team": team, "state": None if state is None else state.value, "after": after, "limit": limit}
        return await self._read(
            lambda db: [DELIVERIES.record(row) for row in db.execute(SQL["deliveries"], parameters)]
        )

    async def deliveries_of(self, prediction_id: str, *, limit: int = 100) -> list[Delivery]:
        """List the messages of a prediction."""
        wanted = {"prediction_id": prediction_id, "limit": limit}
        found = await self._read(
            lambda db: [DELIVERIES.record(row) for row in db.execute(SQL["deliveries_of_prediction"], wanted)]
        )
        return sorted(found, key=lambda each: (each.created_at, each.id))

    async def redeliver(self, now: float, delivery_id: str) -> bool:
        """Let one message be tried at once."""

        def step(db: sqlite3.Connection) -> bool:
            return db.execute(SQL["redeliver_one"], {"now": now, "id": delivery_id}).rowcount > 0

        return await self._write(step)

    async def redeliver_all(self, now: float, *, team: str | None = None, dead_only: bool = True) -> int:
        """Let messages be tried at once."""
        statements = ["redeliver_dead"] if dead_only else ["redeliver_queued", "redeliver_dead"]
        parameters = {"now": now, "team": team}
        return await self._write(lambda db: sum(db.execute(SQL[each], parameters).rowcount for each in statements))

    async def delivery_counts(self) -> DeliveryCounts:
        """Count what is kept."""
        return await self._read(_count)

    async def trim_deliveries(self, max_queued: int, max_dead: int, now: float, limit: int = 500) -> int:
        """Give up what is too much."""
        return await self._write(lambda db: _trim(db, max_queued, max_dead, now, limit), erases=True)

    async def delete_dead_deliveries(self, before: float, limit: int) -> int:
        """Forget old dead letters."""
        parameters = {"before": before, "limit": limit}
        return await self._write(lambda db: db.execute(SQL["delete_dead_deliveries"], parameters).rowcount, erases=True)

    async def awaiting_webhooks(self, *, after: str = "", limit: int = 500) -> list[PredictionView]:
        """List predictions of live runs that have a webhook."""

        def step(db: sqlite3.Connection) -> list[PredictionView]:
            found = (view(row) for row in db.execute(SQL["awaiting_webhooks"], {"after": after}))
            return heapq.nsmallest(limit, found, key=operator.attrgetter("prediction.id"))

        return await self._read(step)


def queue_ends(db: sqlite3.Connection, run_id: str, at: float, *, source: Source | None = None) -> None:
    """Queue the end of each prediction of a run that has ended; of one `source` only, if that is given."""
    for prediction_id, team, url, given in db.execute(SQL["hooked_of_run"], {"run_id": run_id}).fetchall():
        if source is None or given == source.value:
            _add(db, _end(prediction_id, run_id, team, url, at), None)


def queue_end(db: sqlite3.Connection, prediction: Prediction, at: float) -> None:
    """Queue the end of one prediction."""
    if prediction.webhook is not None:
        _add(db, _end(prediction.id, prediction.run_id, prediction.team, prediction.webhook, at), None)


def forget_end(db: sqlite3.Connection, prediction_id: str) -> None:
    """Take a prediction's end out of the queue."""
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
    given_up = forgotten = 0
    if (excess := min(limit, counts.queued - max_queued)) > 0:
        given_up = db.execute(SQL["give_up_oldest"], {"now": now, "error": _TRIMMED, "limit": excess}).rowcount
    if (excess := min(limit, counts.dead + given_up - max_dead)) > 0:
        forgotten = db.execute(SQL["forget_oldest_dead"], {"limit": excess}).rowcount
    return given_up + forgotten
