"""Runs and predictions (the `Predictions` role). Races are decided here, inside the writer's transaction."""

import sqlite3

from msgspec.structs import replace

from gateway.core.cursors import Cursor
from gateway.core.records import Cancellation, Kind, Page, Prediction, Run, RunState, Sight, Status
from gateway.errors import Conflict
from gateway.store.sql.lanes import Lanes
from gateway.store.sql.paging import Bounds, Listing, Place, Statements
from gateway.store.sql.queries import SQL
from gateway.store.sql.rows import PREDICTIONS, RUNS, sight

_OPEN = (RunState.INTENDED, RunState.LIVE)
_OF_TEAM = Statements.named("predictions_of_team")
_OF_ALL = Statements.named("predictions_of_all")


class SQLitePredictions(Lanes):
    """Runs, and the predictions that share them."""

    async def record_intent(self, run: Run) -> None:
        """Remember that a run is about to be created upstream."""

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["record_intent"], RUNS.row(run))

        await self._write(step, durable=True)

    async def record_created(self, run: Run, prediction: Prediction) -> None:
        """Turn an intent into a run with its first prediction."""

        def step(db: sqlite3.Connection) -> None:
            _save_created(db, run)
            if db.execute(SQL["add_prediction"], PREDICTIONS.row(prediction)).rowcount == 0:
                (run_id,) = db.execute(SQL["run_of_prediction"], {"id": prediction.id}).fetchone()
                if run_id != prediction.run_id:
                    raise Conflict("A prediction of this id belongs to another run.")

        await self._write(step, durable=True)

    async def discard_intent(self, run_id: str) -> None:
        """Forget an intent."""

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["discard_intent"], {"id": run_id})

        await self._write(step, erases=True)

    async def advance(
        self,
        run_id: str,
        *,
        status: Status,
        document: bytes,
        stream_url: str | None,
        at: float,
    ) -> Run | None:
        """Take news of a run."""
        statement = SQL["finish" if status.is_terminal else "progress"]
        news: dict[str, str | bytes | float | None] = {
            "id": run_id,
            "status": status.value,
            "document": document,
            "stream_url": stream_url,
        }
        news |= {"at": at} if status.is_terminal else {"rank": status.rank}

        def step(db: sqlite3.Connection) -> Run | None:
            rows = db.execute(statement, news).fetchall()
            return RUNS.record(rows[0]) if rows else None

        return await self._write(step, durable=status.is_terminal)

    async def cancel(self, prediction_id: str, at: float) -> Cancellation | None:
        """End a prediction for its caller."""
        return await self._write(lambda db: _cancel(db, prediction_id, at))

    async def prediction(self, prediction_id: str) -> Sight | None:
        """Find a prediction by its id."""
        return await self._read(lambda db: _sight(db, "prediction", {"id": prediction_id}))

    async def prediction_by_ticket(self, ticket_sha256: str) -> Sight | None:
        """Find the prediction of a stream ticket."""
        return await self._read(lambda db: _sight(db, "prediction_by_ticket", {"ticket": ticket_sha256}))

    async def predictions(
        self,
        *,
        team: str | None,
        kind: Kind,
        limit: int,
        position: Cursor | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
    ) -> Page:
        """List predictions, newest first."""
        listing = Listing(
            _OF_ALL if team is None else _OF_TEAM,
            {"team": team, "kind": kind.value},
            Bounds.between(created_after, created_before),
            sight,
            _place,
        )
        return Page(*await self._read(lambda db: listing.stretch(db, limit, position)))

    async def owns_upstream_id(self, upstream_id: str) -> bool:
        """Say whether some run has this upstream id."""

        def step(db: sqlite3.Connection) -> bool:
            return db.execute(SQL["owns_upstream_id"], {"upstream_id": upstream_id}).fetchone() is not None

        return await self._read(step)

    async def open_runs(self, *, after: str = "", limit: int = 500) -> list[Run]:
        """List runs that have not ended, by id."""
        return await self._read(lambda db: _runs(db, "open_runs", {"after": after, "limit": limit}))

    async def runs_to_clear(self, ended_before: float, limit: int) -> list[Run]:
        """List ended runs whose data is still kept."""
        return await self._read(lambda db: _runs(db, "runs_to_clear", {"ended_before": ended_before, "limit": limit}))

    async def clear_data(self, run_id: str, document: bytes) -> None:
        """Drop an ended run's data."""

        def step(db: sqlite3.Connection) -> None:
            db.execute(SQL["clear_data"], {"id": run_id, "document": document})

        await self._write(step, erases=True)

    async def delete_records(self, created_before: float, limit: int) -> int:
        """Delete old predictions, and runs left without any."""
        return await self._write(lambda db: _delete_records(db, created_before, limit), erases=True)


def _place(item: Sight) -> Place:
    return item.prediction.created_at, item.prediction.id


def _sight(db: sqlite3.Connection, query: str, parameters: dict[str, str]) -> Sight | None:
    row = db.execute(SQL[query], parameters).fetchone()
    return None if row is None else sight(row)


def _runs(db: sqlite3.Connection, query: str, parameters: dict[str, str | float | int]) -> list[Run]:
    return [RUNS.record(row) for row in db.execute(SQL[query], parameters)]


def _save_created(db: sqlite3.Connection, run: Run) -> None:
    """Write a created run over its intent, unless news of it came first (`advance`): then only add what is missing."""
    known = db.execute(SQL["known_run"], {"id": run.id}).fetchone()
    if known is not None:
        state, status, upstream_id, document_size = known
        known_rank, is_news_kept = Status(status).rank, document_size > 0
        if upstream_id is not None or state == RunState.LIVE:
            return
        if (
            state != RunState.INTENDED
            or known_rank > run.status.rank
            or (known_rank == run.status.rank and is_news_kept)
        ):
            parameters = {"upstream_id": run.upstream_id, "live_at": run.live_at, "stream_url": run.stream_url}
            db.execute(SQL["name_run"], parameters | {"id": run.id})
            return
    db.execute(SQL["save_run"], RUNS.row(run))


def _cancel(db: sqlite3.Connection, prediction_id: str, at: float) -> Cancellation | None:
    seen = _sight(db, "prediction", {"id": prediction_id})
    if seen is None:
        return None
    prediction, run = seen.prediction, seen.run
    if prediction.canceled_at is not None or run.state not in _OPEN:
        return Cancellation(seen, changed=False, is_last=False)
    db.execute(SQL["cancel_prediction"], {"id": prediction_id, "at": at})
    prediction = replace(prediction, canceled_at=at)
    is_last = run.cancel_asked_at is None and db.execute(SQL["someone_waits"], {"run_id": run.id}).fetchone() is None
    if is_last:
        db.execute(SQL["ask_cancel"], {"run_id": run.id, "at": at})
        run = replace(run, cancel_asked_at=at)
    return Cancellation(Sight(prediction, run), changed=True, is_last=is_last)


def _delete_records(db: sqlite3.Connection, created_before: float, limit: int) -> int:
    doomed: list[tuple[str, str]] = []
    # By kind, because the list's index is by kind.
    for kind in Kind:
        parameters = {"kind": kind.value, "created_before": created_before, "limit": limit - len(doomed)}
        doomed += db.execute(SQL["predictions_to_delete"], parameters).fetchall()
    db.executemany(SQL["delete_prediction"], [{"id": prediction_id} for prediction_id, _ in doomed])
    db.executemany(SQL["delete_run_without_predictions"], [{"id": each} for each in {run_id for _, run_id in doomed}])
    return len(doomed)
