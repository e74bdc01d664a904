"""The queue of webhook deliveries and the dead letters (the `Deliveries` role).

`reserve_place` runs inside the transactions that record predictions, `queue_ends` and `queue_end` inside those that end
them. So an accepted prediction has the place of its delivery, and cannot end without its delivery being queued. A
delivery has no body until its first attempt fails: the body is made from the prediction.
"""

import heapq
import operator
from collections import Counter
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from gateway.domain.audit import Action, Actor, Change, Values
from gateway.domain.ledger import BudgetWarning
from gateway.domain.quota import Refused
from gateway.domain.records import LARGE_DOCUMENT, Prediction, PredictionView, Source
from gateway.domain.webhook_places import Taken, WebhookPlace, decide
from gateway.store.sql.audit import record
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.ledger_entries import add_warning
from gateway.store.sql.locks import Lock
from gateway.store.sql.lookup import EVERYTHING
from gateway.store.sql.rows import DELIVERIES, view
from gateway.webhooks.ports import Busy, LargeBody
from gateway.webhooks.rules.deliveries import (
    Delivery,
    DeliveryCounts,
    DeliveryKind,
    DeliveryState,
    message_id,
    receiver_of,
)


class DeliverySteps(Connections):
    """Queued deliveries and dead letters."""

    async def add_delivery(self, delivery: Delivery, body: bytes) -> None:
        """Queue a delivery with its body."""
        await self._write(lambda db: _add(db, delivery, body), durable=True)

    async def announce_once(self, warning: BudgetWarning, delivery: Delivery, body: bytes) -> bool:
        """Record a budget warning and queue its message, unless the warning is known."""

        def step(db: Database) -> bool:
            is_first = add_warning(db, warning)
            if is_first:
                _add(db, delivery, body)
            return is_first

        return await self._write(step, durable=True)

    async def claim_deliveries(self, now: float, until: float, limit: int, busy: Busy) -> list[Delivery]:
        """Claim deliveries that are due."""
        # The search runs on the reading thread, to keep the writing thread free. The write checks each one again.
        found = await self._read(lambda db: _find_due(db, now, limit, busy))
        if not found:
            return []
        return await self._write(lambda db: _hold(db, found, now, until))

    async def release_deliveries(self, delivery_ids: Sequence[str]) -> None:
        """Return claimed deliveries that were not attempted."""

        def step(db: Database) -> None:
            db.executemany("release_delivery", [{"id": each, "node": db.node} for each in delivery_ids])

        await self._write(step)

    async def reclaim_deliveries(self) -> int:
        """Release the claims of an earlier process, and places that nothing will use."""

        def step(db: Database) -> int:
            # A node that joins now could claim one, and would not be seen to live.
            db.lock(Lock.NODES)
            db.execute("free_unused_places")
            return db.execute("reclaim_deliveries").rowcount

        return await self._write(step)

    async def delivery_body(self, delivery_id: str, *, most_bytes: int | None = None) -> bytes | LargeBody | None:
        """Return a delivery's stored body."""
        parameters = {"id": delivery_id, "most_bytes": EVERYTHING if most_bytes is None else most_bytes}

        def step(db: Database) -> bytes | LargeBody | None:
            row = db.execute("delivery_body", parameters).fetchone()
            if row is None or row[0] is None:
                return None
            size, body = row
            return LargeBody(size) if body is None else bytes(body)

        return await self._read(step)

    async def delivered(self, delivery_id: str) -> None:
        """Delete a delivery that the receiver accepted."""

        def step(db: Database) -> None:
            db.execute("delivered", {"id": delivery_id, "node": db.node})

        await self._write(step, erases=True)

    async def postpone_delivery(self, delivery_id: str, next_at: float, error: str, body: bytes) -> None:
        """Schedule the next attempt of a delivery."""
        parameters = {"id": delivery_id, "next_at": next_at, "error": error, "body": body}

        def step(db: Database) -> None:
            db.execute("postpone_delivery", parameters | {"node": db.node})

        await self._write(step)

    async def mark_dead(self, delivery_id: str, at: float, error: str, body: bytes) -> None:
        """Make a delivery a dead letter."""
        parameters = {"id": delivery_id, "at": at, "error": error, "body": body}

        def step(db: Database) -> None:
            db.execute("mark_dead", parameters | {"node": db.node})

        await self._write(step)

    async def deliveries(
        self, *, team: str | None = None, state: DeliveryState | None = None, after: str = "", limit: int = 500
    ) -> list[Delivery]:
        """List deliveries by id."""
        parameters = {"team": team, "state": None if state is None else state.value, "after": after, "limit": limit}
        return await self._read(lambda db: [DELIVERIES.record(row) for row in db.execute("deliveries", parameters)])

    async def deliveries_of(self, prediction_id: str, *, limit: int = 100) -> list[Delivery]:
        """List the deliveries of a prediction, oldest first."""
        wanted = {"prediction_id": prediction_id, "limit": limit}
        found = await self._read(
            lambda db: [DELIVERIES.record(row) for row in db.execute("deliveries_of_prediction", wanted)]
        )
        return sorted(found, key=lambda each: (each.created_at, each.id))

    async def redeliver(self, now: float, delivery_id: str, *, actor: Actor, team: str | None = None) -> bool:
        """Make one delivery due at once."""

        def step(db: Database) -> bool:
            found = db.execute("redeliver_one", {"now": now, "id": delivery_id, "team": team}).fetchall()
            for of_team, prediction_id in found:
                record(db, now, actor, _redelivered(delivery_id, of_team, {"prediction": prediction_id}))
            return bool(found)

        return await self._write(step)

    async def redeliver_all(self, now: float, *, actor: Actor, team: str | None = None, dead_only: bool = True) -> int:
        """Make deliveries due at once."""
        statements = ["redeliver_dead"] if dead_only else ["redeliver_queued", "redeliver_dead"]
        parameters = {"now": now, "team": team}

        def step(db: Database) -> int:
            count = sum(db.execute(each, parameters).rowcount for each in statements)
            if count:
                after = {"deliveries": count, "dead_only": dead_only}
                record(db, now, actor, _redelivered("all" if team is None else team, team, after))
            return count

        return await self._write(step)

    async def delivery_counts(self) -> DeliveryCounts:
        """Count queued deliveries, dead letters and the places that are taken."""
        return await self._read(_count)

    async def trim_dead_deliveries(self, most: int, limit: int = 500) -> int:
        """Delete the oldest dead letters of each team that has too many."""
        found = await self._read(lambda db: db.execute("teams_with_excess_dead", {"most": most}).fetchall())
        if not found:
            return 0

        def step(db: Database) -> int:
            excess = [{"team": team, "limit": min(limit, count)} for team, count in found]
            return sum(db.execute("delete_oldest_dead", each).rowcount for each in excess)

        return await self._write(step, erases=True)

    async def delete_dead_deliveries(self, before: float, limit: int) -> int:
        """Delete old dead letters."""
        parameters = {"before": before, "limit": limit}
        return await self._write(lambda db: db.execute("delete_dead_deliveries", parameters).rowcount, erases=True)

    async def awaiting_webhooks(self, *, after: str = "", limit: int = 500) -> list[PredictionView]:
        """List the predictions of runs in progress that have a webhook."""

        def step(db: Database) -> list[PredictionView]:
            given = {"after": after, "limit": limit, "node": db.node, "most_bytes": LARGE_DOCUMENT}
            found = (view(row) for row in db.execute("awaiting_webhooks", given))
            return heapq.nsmallest(limit, found, key=operator.attrgetter("prediction.id"))

        return await self._read(step)


def find_place(db: Database, team: str, wanted: WebhookPlace | None) -> Refused | None:
    """Return the bound that leaves no place for a prediction of a team; `None` if there is one, or it needs none."""
    if wanted is None:
        return None
    db.lock(Lock.PLACES)
    return decide(team, wanted, Taken(*db.execute("places_taken", {"team": team}).fetchone()))


def reserve_place(db: Database, prediction: Prediction, wanted: WebhookPlace | None = None) -> None:
    """Take the place of a new prediction's delivery, if it has a webhook. Check with `find_place` first."""
    if prediction.webhook is not None:
        is_public = wanted is not None and wanted.is_public
        delivery = _end(prediction.id, prediction.run_id, prediction.team, prediction.webhook, prediction.created_at)
        _add(db, replace(delivery, state=DeliveryState.RESERVED, is_public=is_public), None)


def move_place(db: Database, from_id: str, to_id: str) -> None:
    """Pass the place of a prediction on to the id that upstream gave it."""
    parameters = {"from_id": message_id(from_id), "to_id": message_id(to_id), "prediction_id": to_id}
    db.execute("move_place", parameters)


def free_place(db: Database, prediction_id: str) -> None:
    """Free the place of a prediction that has gone without an end."""
    db.execute("free_place", {"id": message_id(prediction_id)})


def free_places(db: Database, run_id: str) -> None:
    """Free the places of a run that was never created."""
    db.execute("free_places_of_run", {"run_id": run_id})


def queue_ends(db: Database, run_id: str, at: float, *, source: Source | None = None) -> None:
    """Queue a delivery for each prediction of an ended run that has a webhook; only those of `source` if given."""
    rows = db.execute("predictions_with_webhook", {"run_id": run_id}).fetchall()
    for prediction_id, team, url, row_source in rows:
        if source is None or row_source == source.value:
            _add(db, _end(prediction_id, run_id, team, url, at), None)


def queue_end(db: Database, prediction: Prediction, at: float) -> None:
    """Queue a delivery for the end of one prediction, if it has a webhook."""
    if prediction.webhook is not None:
        _add(db, _end(prediction.id, prediction.run_id, prediction.team, prediction.webhook, at), None)


def forget_end(db: Database, prediction_id: str) -> None:
    """Delete the queued delivery for a prediction's end."""
    db.execute("delete_delivery", {"id": message_id(prediction_id)})


def _redelivered(subject: str, team: str | None, after: Values) -> Change:
    return Change(action=Action.WEBHOOKS_REDELIVERED, subject=subject, team=team, after=after)


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


def _add(db: Database, delivery: Delivery, body: bytes | None) -> None:
    db.execute("add_delivery", (*DELIVERIES.row(delivery), body))


def _find_due(db: Database, now: float, limit: int, busy: Busy) -> list[str]:
    parameters = {
        "now": now,
        "node": db.node,
        "receivers": msgspec.json.encode(busy.receivers).decode(),
        "teams": msgspec.json.encode(busy.teams).decode(),
    }
    found: list[str] = []
    taken: Counter[str] = Counter()
    for delivery_id, receiver in db.execute("deliveries_due", parameters):
        if taken[receiver] >= busy.per_receiver:
            continue
        taken[receiver] += 1
        found.append(delivery_id)
        if len(found) == limit:
            break
    return found


def _hold(db: Database, found: Sequence[str], now: float, until: float) -> list[Delivery]:
    held: list[Delivery] = []
    for delivery_id in found:
        given = {"id": delivery_id, "now": now, "until": until, "node": db.node}
        rows = db.execute("hold_delivery", given).fetchall()
        held += [DELIVERIES.record(row) for row in rows]
    return held


def _count(db: Database) -> DeliveryCounts:
    queued, oldest_queued_at = db.execute("queued_deliveries").fetchone()
    (dead,) = db.execute("dead_deliveries").fetchone()
    by_team = db.execute("deliveries_by_team").fetchall()
    return DeliveryCounts(
        queued,
        dead,
        oldest_queued_at,
        taken={team: taken for team, taken, _ in by_team},
        dead_of={team: of_team for team, _, of_team in by_team if of_team},
    )
