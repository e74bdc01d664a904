"""Runs and predictions in progress and at their end (the `Predictions` role); `intents.py` has how they begin.

Races are decided here, inside the writer's transaction.
"""

import asyncio
import operator

from msgspec.structs import replace

from gateway.domain.cursors import Cursor
from gateway.domain.ledger import Settlement
from gateway.domain.records import (
    LARGE_DOCUMENT,
    Cancellation,
    Kind,
    Page,
    PredictionView,
    Run,
    RunState,
    Source,
    Status,
)
from gateway.domain.run_end import RunEnded
from gateway.predictions.ports.predictions import AdvanceOutcome, Progressed, Unchanged
from gateway.store.sql.connections import Connections, Lane
from gateway.store.sql.database import Database
from gateway.store.sql.deliveries import free_place, queue_end, queue_ends
from gateway.store.sql.events import drop_events
from gateway.store.sql.locks import Lock
from gateway.store.sql.lookup import EVERYTHING, find_view, list_runs
from gateway.store.sql.outputs import release_copies
from gateway.store.sql.paging import Bounds, Listing, Place, Statements
from gateway.store.sql.rows import RUNS, view
from gateway.store.sql.run_end import find_end, record_end

_OF_TEAM = Statements.named("predictions_of_team")
_OF_OWNER = Statements.named("predictions_of_owner")
_OF_ALL = Statements.named("predictions_of_all")


class PredictionSteps(Connections):
    """Runs, and the predictions that share them."""

    def advance(
        self,
        run_id: str,
        *,
        status: Status,
        document: bytes,
        stream_url: str | None,
        at: float,
        cache_until: float | None = None,
        settlement: Settlement | None = None,
    ) -> asyncio.Future[AdvanceOutcome]:
        """Record what upstream says of a run."""
        statement = "finish" if status.is_terminal else "progress"
        values: dict[str, str | bytes | float | None] = {
            "id": run_id,
            "status": status.value,
            "document": document,
            "stream_url": stream_url,
        }
        values |= {"at": at, "cache_until": cache_until} if status.is_terminal else {"rank": status.rank}

        def step(db: Database) -> AdvanceOutcome:
            rows = db.execute(statement, values | {"node": db.node}).fetchall()
            if not rows:
                return Unchanged()
            run = replace(RUNS.record(rows[0]), document=document)
            if not status.is_terminal:
                return Progressed(run)
            ended = record_end(db, run, settlement or Settlement(at=at))
            queue_ends(db, run_id, at)
            return ended

        lane = Lane.DECIDE if status.is_terminal else Lane.PROGRESS
        return self._write(step, durable=status.is_terminal, lane=lane)

    async def mark_unreadable(self, run_id: str, since: float | None) -> None:
        """Record since when upstream's answers about a run cannot be read."""

        def step(db: Database) -> None:
            db.execute("mark_unreadable", {"id": run_id, "since": since, "node": db.node})

        await self._write(step)

    async def ended_run(self, run_id: str) -> RunEnded | None:
        """Find the end of a run that has ended."""
        return await self._read(lambda db: find_end(db, run_id))

    async def cancel(
        self, prediction_id: str, at: float, *, by_deadline: bool = False, is_repeated: bool = False
    ) -> Cancellation | None:
        """End a prediction for its caller."""

        def step(db: Database) -> Cancellation | None:
            return _cancel(db, prediction_id, at, by_deadline=by_deadline, is_repeated=is_repeated)

        return await self._write(step)

    async def prediction(self, prediction_id: str, *, most_bytes: int | None = None) -> PredictionView | None:
        """Find a prediction by its id."""
        return await self._read(lambda db: find_view(db, "shown_prediction", {"id": prediction_id}, most_bytes))

    async def prediction_by_ticket(self, ticket_sha256: str) -> PredictionView | None:
        """Find the prediction of a stream ticket."""
        ticket = {"ticket": ticket_sha256}
        return await self._read(lambda db: find_view(db, "prediction_by_ticket", ticket, LARGE_DOCUMENT))

    async def predictions(
        self,
        *,
        team: str | None,
        kind: Kind,
        limit: int,
        owner: str | None = None,
        max_bytes: int | None = None,
        position: Cursor | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
    ) -> Page:
        """List predictions, newest first."""
        of_team = _OF_TEAM if owner is None else _OF_OWNER
        listing = Listing(
            _OF_ALL if team is None else of_team,
            {
                "team": team,
                "owner": owner,
                "kind": kind.value,
                "most_bytes": EVERYTHING if max_bytes is None else max_bytes,
            },
            Bounds.between(created_after, created_before),
            view,
            _place,
            operator.attrgetter("left_out"),
        )
        return Page(*await self._read(lambda db: listing.stretch(db, limit, position, max_bytes)))

    async def owns_upstream_id(self, upstream_id: str) -> bool:
        """Say whether some run has this upstream id."""

        def step(db: Database) -> bool:
            return db.execute("owns_upstream_id", {"upstream_id": upstream_id}).fetchone() is not None

        return await self._read(step)

    async def open_runs(self, *, after: str = "", limit: int = 500) -> list[Run]:
        """List runs that have not ended, by id."""
        return await self._read(
            lambda db: list_runs(db, "open_runs", {"after": after, "limit": limit, "node": db.node})
        )

    async def runs_to_cancel(self) -> list[Run]:
        """List live runs that nobody waits for any more."""
        return await self._read(lambda db: list_runs(db, "runs_to_cancel", {"node": db.node}))

    async def runs_to_clear(self, ended_before: float, now: float, limit: int) -> list[Run]:
        """List ended runs whose data is still kept and serves nobody."""
        parameters = {"ended_before": ended_before, "now": now, "limit": limit}
        return await self._read(lambda db: list_runs(db, "runs_to_clear", parameters))

    async def clear_data(self, run_id: str, document: bytes) -> None:
        """Drop an ended run's data."""

        def step(db: Database) -> None:
            db.lock(Lock.OUTPUTS)
            if db.execute("clear_data", {"id": run_id, "document": document}).rowcount:
                db.execute("drop_entry", {"run_id": run_id})
                drop_events(db, run_id)
                release_copies(db, run_id)

        await self._write(step, erases=True)

    async def delete_records(self, created_before: float, limit: int) -> int:
        """Delete old predictions, and runs left without any."""
        return await self._write(lambda db: _delete_records(db, created_before, limit), erases=True)


def _place(item: PredictionView) -> Place:
    return item.prediction.created_at, item.prediction.id


def _cancel(
    db: Database, prediction_id: str, at: float, *, by_deadline: bool, is_repeated: bool
) -> Cancellation | None:
    db.lock(Lock.RUN_OF_PREDICTION, prediction_id)
    seen = find_view(db, "shown_prediction", {"id": prediction_id}, LARGE_DOCUMENT)
    if seen is None:
        return None
    prediction, run = seen.prediction, seen.run
    if is_repeated and prediction.canceled_at == at:
        return Cancellation(seen, changed=True, is_last=run.cancel_asked_at == at)
    if prediction.canceled_at is not None or run.state is not RunState.LIVE:
        return Cancellation(seen, changed=False, is_last=False)
    final_status = Status.ABORTED if by_deadline and run.status is Status.STARTING else Status.CANCELED
    db.execute("cancel_prediction", {"id": prediction_id, "at": at, "final_status": final_status.value})
    prediction = replace(prediction, canceled_at=at, final_status=final_status)
    if prediction.source is not Source.JOINED or run.fingerprint is not None:
        # Else it will be detached from the run, and no caller knows its id.
        queue_end(db, prediction, at)
    is_last = run.cancel_asked_at is None and db.execute("someone_waits", {"run_id": run.id}).fetchone() is None
    if is_last:
        # From here on nobody joins it: it has stopped being open.
        db.execute("ask_cancel", {"run_id": run.id, "at": at})
        run = replace(run, cancel_asked_at=at)
    return Cancellation(PredictionView(prediction, run, seen.left_out), changed=True, is_last=is_last)


def _delete_records(db: Database, created_before: float, limit: int) -> int:
    """Delete predictions by their age alone: a run that could still answer requests goes with the last of its own."""
    db.lock(Lock.OUTPUTS)
    doomed: list[tuple[str, str]] = []
    # By kind, because the list's index is by kind.
    for kind in Kind:
        parameters = {"kind": kind.value, "created_before": created_before, "limit": limit - len(doomed)}
        doomed += db.execute("predictions_to_delete", parameters).fetchall()
    db.lock(Lock.RUN, *{run_id for _, run_id in doomed})
    for prediction_id, _ in doomed:
        db.execute("delete_prediction", {"id": prediction_id})
        db.execute("forget_key", {"prediction_id": prediction_id})
        free_place(db, prediction_id)
    for run_id in {run_id for _, run_id in doomed}:
        if db.execute("delete_run_without_predictions", {"id": run_id}).rowcount:
            db.execute("drop_entry", {"run_id": run_id})
            drop_events(db, run_id)
            release_copies(db, run_id)
    return len(doomed)
