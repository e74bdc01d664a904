"""Runs that several predictions share (the `Sharing` role). One step decides between hit, join and start."""

import asyncio
import heapq
import operator
from collections.abc import Callable, Sequence

import msgspec
from msgspec.structs import replace

from gateway.domain.admission_record import Admitted
from gateway.domain.ledger import Reservation
from gateway.domain.quota import ReservationRequest
from gateway.domain.records import Prediction, PredictionView, Run, Source
from gateway.errors import Conflict
from gateway.predictions.ports.sharing import (
    MOST_HITS,
    FinishedRuns,
    Hit,
    HitRequests,
    Joined,
    ModelNamed,
    Nothing,
    OpenRuns,
    Refused,
    Shared,
    ShareOutcome,
    ShareRequest,
    Started,
    StartOutcome,
    Unidentified,
)
from gateway.store.sql.cache import keep_entry
from gateway.store.sql.connections import Connections, Lane
from gateway.store.sql.database import Database
from gateway.store.sql.deliveries import find_place, forget_end, queue_end, queue_ends, reserve_place
from gateway.store.sql.hits import Entry, find_entry, record_hits
from gateway.store.sql.idempotency import first_request, remember
from gateway.store.sql.ledger_entries import NewHit, enter_hits, joined_prediction, take_back_join
from gateway.store.sql.locks import Lock
from gateway.store.sql.lookup import SharedRun, find_run, find_run_to_share
from gateway.store.sql.reservations import reserve
from gateway.store.sql.rows import PREDICTIONS, RUNS
from gateway.store.sql.versions import model_of

_NOTHING = Nothing()


class SharingSteps(Connections):
    """Predictions as they are created, and the identity by which they find each other."""

    _record_hits: Callable[[Database, Sequence[ShareRequest]], list[Hit | None]] = staticmethod(record_hits)

    def share(self, request: ShareRequest) -> asyncio.Future[ShareOutcome]:
        """Add the prediction to a run that exists."""
        return self._write(lambda db: _share(db, request) or _NOTHING)

    def record_hits(self, requests: HitRequests) -> asyncio.Future[list[Hit | None]]:
        """Add predictions to finished runs."""
        taken: Sequence[ShareRequest] | None = None

        def step(db: Database) -> list[Hit | None]:
            nonlocal taken
            if taken is None:
                # Read once: if the step runs again, it does the same.
                taken = requests[:MOST_HITS]
            return self._record_hits(db, taken)

        return self._write(step, lane=Lane.HITS)

    def start(
        self,
        request: ShareRequest,
        run: Run,
        *,
        reservation: ReservationRequest | None = None,
        admitted: Admitted | None = None,
    ) -> asyncio.Future[StartOutcome]:
        """Record an intent, unless there is a run to share."""
        return self._write(
            lambda db: _share(db, request, run) or _start(db, request, run, reservation, admitted), durable=True
        )

    async def settle_identity(
        self, run_id: str, fingerprint: str | None, cache_until: float | None, *, reason: str | None = None
    ) -> bool:
        """Give a run its final identity."""
        return await self._write(lambda db: _settle_identity(db, run_id, fingerprint, cache_until, reason))

    async def detach(self, prediction_id: str) -> None:
        """Remove a joined prediction from its run, which goes on without it."""

        def step(db: Database) -> None:
            db.lock(Lock.RUN_OF_PREDICTION, prediction_id)
            joined = joined_prediction(db, prediction_id)
            if joined is not None:
                take_back_join(db, joined)
                db.execute("detach", {"id": prediction_id})
                db.execute("forget_key", {"prediction_id": prediction_id})
                forget_end(db, prediction_id)

        await self._write(step, erases=True)

    async def run(self, run_id: str) -> Run | None:
        """Find a run."""
        return await self._read(lambda db: find_run(db, "run", {"id": run_id}))

    async def runs_by_id(self, run_ids: Sequence[str], *, most_bytes: int) -> dict[str, Run]:
        """Find runs, without large documents."""
        given = {"ids": msgspec.json.encode(list(run_ids)).decode(), "most_bytes": most_bytes}

        def step(db: Database) -> dict[str, Run]:
            found = (RUNS.record(row[:-1]) for row in db.execute("runs_unless_large", given))
            return {run.id: run for run in found}

        return await self._read(step)

    async def shared_run(self, may_hit: FinishedRuns | None, may_join: OpenRuns | None, now: float) -> Run | None:
        """Find the run that `share` would choose."""
        return await self._read(lambda db: _finished(db, may_hit, now) or _open_run(db, may_join))

    async def predictions_of(self, run_id: str, *, limit: int = 10_000) -> list[Prediction]:
        """List the predictions that share a run."""
        parameters = {"run_id": run_id, "limit": limit}
        return await self._read(
            lambda db: [PREDICTIONS.record(row) for row in db.execute("predictions_of_run", parameters)]
        )

    async def deadlines(self, *, after: str = "", limit: int = 500) -> list[Prediction]:
        """List predictions with a deadline that have not ended. Those of intents have not begun."""

        def step(db: Database) -> list[Prediction]:
            given = {"after": after, "limit": limit, "node": db.node}
            found = (PREDICTIONS.record(row) for row in db.execute("deadlines", given))
            return heapq.nsmallest(limit, found, key=operator.attrgetter("id"))

        return await self._read(step)


def _share(db: Database, request: ShareRequest, intent: Run | None = None) -> Shared | Refused | None:
    if request.idempotency is not None:
        first = first_request(db, request.prediction.team, request.idempotency, request.now)
        if first is not None:
            return first
    if intent is not None:
        _lock_identities(db, request, intent)
    if (entry := find_entry(db, request.may_hit, request.now)) is not None:
        return _without_place(db, request) or _hit(db, request, entry)
    if (found := _run_to_join(db, request.may_join)) is not None:
        joined = _without_place(db, request)
        return joined or Joined(_add_prediction(db, request, found.run, Source.JOINED, left_out=found.left_out))
    if db.is_shared and request.may_join is not None and (entry := find_entry(db, request.may_hit, request.now)):
        # Its run was still open at the first search, and had ended before it could be joined.
        return _without_place(db, request) or _hit(db, request, entry)
    if request.may_join is not None and (provisional := request.may_join.provisional) is not None:
        ended = find_run_to_share(db, "run_without_identity", {"provisional": provisional})
        if ended is not None:
            return Unidentified(ended.run)
    if request.unnamed_version is not None and model_of(db, request.unnamed_version) is not None:
        return ModelNamed()
    return None


def _lock_identities(db: Database, request: ShareRequest, intent: Run) -> None:
    """Lock the identities of a run that may be started, so that no other step starts one of them meanwhile."""
    # Its id too: a discard waits until it is known whether the intent was recorded.
    identities = {intent.id, intent.fingerprint, intent.provisional}
    if request.may_join is not None:
        identities |= {request.may_join.fingerprint, request.may_join.provisional}
    db.lock(Lock.IDENTITY, *(each for each in identities if each is not None))


def _without_place(db: Database, request: ShareRequest) -> Refused | None:
    refused = find_place(db, request.prediction.team, request.webhook_place)
    return None if refused is None else Refused(refused)


def _hit(db: Database, request: ShareRequest, entry: Entry) -> Hit:
    view = _add_prediction(db, request, entry.run, Source.HIT, left_out=entry.left_out)
    queue_end(db, view.prediction, request.now)
    enter_hits(db, [NewHit(view.prediction, entry.run, request.now, entry.microusd, entry.settled_as)])
    return Hit(view, entry.microusd)


def _start(
    db: Database,
    request: ShareRequest,
    run: Run,
    reservation: ReservationRequest | None,
    admitted: Admitted | None,
) -> Started | Refused:
    run = replace(run, leader_id=request.prediction.id, owner=db.node)
    identity = OpenRuns(run.fingerprint, run.provisional)
    # If it was allowed to join such a run, there is none: `_share` has looked.
    if request.may_join != identity and _run_to_join(db, identity) is not None:
        # Two open runs of one identity would both be joined.
        run = replace(run, fingerprint=None, provisional=None)
    if (no_place := _without_place(db, request)) is not None:
        return no_place
    if reservation is not None:
        refused = reserve(db, _reservation(request, run, reservation), reservation)
        if refused is not None:
            return Refused(refused)
    if db.execute("add_run", RUNS.row(run)).rowcount == 0:
        raise Conflict("A run of this id exists already.")
    return Started(_add_prediction(db, request, run, request.prediction.source, admitted))


def _reservation(request: ShareRequest, run: Run, wanted: ReservationRequest) -> Reservation:
    return Reservation(
        run_id=run.id,
        team=run.team,
        key_id=run.key_id,
        user=request.prediction.user,
        scopes=wanted.scopes(run.team, run.key_id, request.prediction.user, request.prediction.tags),
        milliseconds=wanted.milliseconds,
        microusd=wanted.microusd,
        at=request.now,
    )


def _add_prediction(
    db: Database,
    request: ShareRequest,
    run: Run,
    source: Source,
    admitted: Admitted | None = None,
    left_out: int = 0,
) -> PredictionView:
    prediction = replace(
        request.prediction, run_id=run.id, source=source, admitted=admitted or request.prediction.admitted
    )
    if db.execute("add_prediction", PREDICTIONS.row(prediction)).rowcount == 0:
        raise Conflict("A prediction of this id exists already.")
    reserve_place(db, prediction, request.webhook_place)
    if request.idempotency is not None:
        remember(db, prediction.team, request.idempotency, prediction.id)
    return PredictionView(prediction, run, left_out)


def _finished(db: Database, wanted: FinishedRuns | None, now: float) -> Run | None:
    entry = find_entry(db, wanted, now)
    return None if entry is None else entry.run


def _run_to_join(db: Database, wanted: OpenRuns | None) -> SharedRun | None:
    if wanted is None:
        return None
    run = None
    if wanted.fingerprint is not None:
        run = find_run_to_share(db, "run_to_join", {"fingerprint": wanted.fingerprint})
    if run is None and wanted.provisional is not None:
        parameters = {"fingerprint": wanted.fingerprint, "provisional": wanted.provisional}
        run = find_run_to_share(db, "run_to_join_provisionally", parameters)
    return run


def _open_run(db: Database, wanted: OpenRuns | None) -> Run | None:
    found = _run_to_join(db, wanted)
    return None if found is None else found.run


def _settle_identity(
    db: Database, run_id: str, fingerprint: str | None, cache_until: float | None, reason: str | None
) -> bool:
    if fingerprint is not None:
        db.lock(Lock.IDENTITY, fingerprint)
    db.lock(Lock.RUN, run_id)
    before = db.execute("end_of_run", {"id": run_id}).fetchone()
    if reason is not None:
        db.execute("settle_reason", {"run_id": run_id, "reason": reason, "node": db.node})
    row = db.execute("settle_identity", {"id": run_id, "fingerprint": fingerprint, "node": db.node}).fetchall()
    if not row or row[0][0] != fingerprint:
        return False
    had_fingerprint, ended_at = before
    if had_fingerprint is None and ended_at is not None:
        # It ended before the predictions that had joined it knew whether they could stay.
        queue_ends(db, run_id, ended_at, source=Source.JOINED)
    if cache_until is not None:
        db.execute("keep_run_until", {"run_id": run_id, "cache_until": cache_until})
        keep_entry(db, run_id)
    return True
