"""Outcomes of intents (`Predictions` and `Sharing` roles): created, uncertain, or discarded."""

import asyncio
from typing import NamedTuple

from msgspec.structs import replace

from gateway.domain.ledger import Settlement
from gateway.domain.records import Prediction, PredictionView, Run, RunState, Status
from gateway.errors import Conflict, RunTakenOver
from gateway.predictions.ports.predictions import Recorded
from gateway.store.sql.connections import Connections
from gateway.store.sql.database import Database
from gateway.store.sql.deliveries import free_places, move_place, queue_end, queue_ends, reserve_place
from gateway.store.sql.locks import Lock
from gateway.store.sql.lookup import find_run_to_share, find_view
from gateway.store.sql.reservations import release
from gateway.store.sql.rows import PREDICTIONS, RUNS
from gateway.store.sql.run_end import record_end


class IntentSteps(Connections):
    """Runs that are about to be created upstream. `start` records them."""

    def record_created(
        self, run: Run, prediction: Prediction, settlement: Settlement | None = None
    ) -> asyncio.Future[Recorded]:
        """Turn an intent into a run with its starter."""
        return self._write(lambda db: _record_created(db, run, prediction, settlement), durable=True)

    async def mark_uncertain(self, run_id: str, at: float, *, is_passed_on: bool = False) -> None:
        """Record that upstream may have taken an intent's create; the first time stands."""

        def step(db: Database) -> None:
            owned_by = 0 if is_passed_on else db.node
            db.execute("mark_uncertain", {"id": run_id, "at": at, "node": db.node, "owned_by": owned_by})

        await self._write(step)

    async def discard_intent(self, run_id: str) -> None:
        """Delete an intent with its predictions, keys and reservation."""

        def step(db: Database) -> None:
            db.lock(Lock.IDENTITY, run_id)
            if db.execute("discard_intent", {"id": run_id, "node": db.node}).rowcount:
                db.execute("forget_keys_of_run", {"run_id": run_id})
                db.execute("delete_predictions_of_run", {"run_id": run_id})
                free_places(db, run_id)
                release(db, run_id)

        await self._write(step, erases=True)


class _Known(NamedTuple):
    """What the store knows of a run whose create was answered."""

    owner: int
    state: str
    status: str
    upstream_id: str | None
    document_size: int
    leader_id: str
    fingerprint: str | None
    provisional: str | None

    def is_ahead_of(self, run: Run) -> bool:
        """Say whether `advance` has recorded something newer than the answer to the create."""
        rank = Status(self.status).rank
        is_news_kept = self.document_size > 0
        return self.state != RunState.INTENDED or rank > run.status.rank or (rank == run.status.rank and is_news_kept)


def _record_created(db: Database, run: Run, prediction: Prediction, settlement: Settlement | None) -> Recorded:
    db.lock(Lock.RUN, run.id)
    owner = db.execute("run_of_prediction", {"id": prediction.id}).fetchone()
    if owner is not None and owner[0] != run.id:
        raise Conflict("A prediction of this id belongs to another run.")
    row = db.execute("known_run", {"id": run.id}).fetchone()
    known = None if row is None else _Known(*row)
    if known is not None and known.upstream_id is not None:
        if known.upstream_id != run.upstream_id or owner is None:
            raise Conflict("The run has another id upstream.")
        return Recorded(_recorded(db, prediction.id))
    if not _is_own(db, run, known):
        raise RunTakenOver("Another node of the gateway has taken over the prediction, and looks for it.")
    _refuse_foreign(db, run)
    run = replace(run, leader_id=prediction.id)
    if known is None:
        # The intent is gone. A run that has taken its identity since keeps it.
        is_taken = find_run_to_share(db, "run_to_join", {"fingerprint": run.fingerprint}) is not None
        run = _answering(replace(run, fingerprint=None, provisional=None) if is_taken else run)
        db.execute("add_run", RUNS.row(run))
        db.execute("add_prediction", PREDICTIONS.row(prediction))
        reserve_place(db, prediction)
        view = PredictionView(prediction, run)
    else:
        saved = _save(db, run, known)
        _replace_placeholder(db, known.leader_id, prediction)
        view = PredictionView(prediction, saved) if saved is not None else _recorded(db, prediction.id)
    ended = None
    if run.state is RunState.ENDED:
        ended = record_end(db, view.run, settlement or Settlement(at=run.ended_at or run.intended_at))
    if known is not None and known.state == RunState.ENDED:
        # `advance` recorded the end first, and left out the starter, whose id was not known then.
        queue_end(db, prediction, run.ended_at or run.intended_at)
    elif run.ended_at is not None:
        queue_ends(db, run.id, run.ended_at)
    return Recorded(view, ended)


def _is_own(db: Database, run: Run, known: _Known | None) -> bool:
    """Return whether the run belongs to this node. If its intent is gone, another node may have discarded that."""
    if known is not None:
        return known.owner == db.node
    return run.owner == db.node and db.keep_node()


def _recorded(db: Database, prediction_id: str) -> PredictionView:
    """Read the starter back: the store knows more of its run than the create's answer does."""
    view = find_view(db, "prediction", {"id": prediction_id})
    assert view is not None
    return view


def _refuse_foreign(db: Database, run: Run) -> None:
    parameters = {"upstream_id": run.upstream_id, "kind": run.kind.value, "id": run.id}
    if db.execute("other_run_of_upstream_id", parameters).fetchone() is not None:
        raise Conflict("Another run has this id upstream.")


def _save(db: Database, run: Run, known: _Known) -> Run | None:
    """Write a created run over its intent, and return it as it is written.

    If `advance` came first, add only what is missing, and return `None`: what is recorded is newer than `run`.
    """
    if known.is_ahead_of(run):
        parameters = {
            "id": run.id,
            "upstream_id": run.upstream_id,
            "live_at": run.live_at,
            "stream_url": run.stream_url,
            "leader_id": run.leader_id,
        }
        db.execute("name_run", parameters)
        return None
    # The identity was decided when the run was started.
    run = replace(run, fingerprint=known.fingerprint, provisional=known.provisional, owner=known.owner)
    run = _answering(run)
    db.execute("save_run", (*RUNS.row(run), run.id))
    return run


def _answering(run: Run) -> Run:
    """Return the run with a `cache_until` only if it can answer later requests."""
    may_answer = run.state is RunState.ENDED and run.status is Status.SUCCEEDED and run.fingerprint is not None
    return run if may_answer else replace(run, cache_until=None)


def _replace_placeholder(db: Database, placeholder_id: str, starter: Prediction) -> None:
    if db.execute("save_starter", (*PREDICTIONS.row(starter), placeholder_id, starter.run_id)).rowcount == 0:
        db.execute("add_prediction", PREDICTIONS.row(starter))
    db.execute("move_key", {"from_id": placeholder_id, "to_id": starter.id})
    if starter.webhook is not None:
        move_place(db, placeholder_id, starter.id)
        reserve_place(db, starter)
