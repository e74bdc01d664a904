"""Runs that several predictions share (the `Sharing` role). Who leads and who joins is decided here, in one step."""

import heapq
import operator
import sqlite3

from msgspec.structs import replace

from gateway.domain.ledger import Reservation
from gateway.domain.quota import ReservationRequest
from gateway.domain.records import Begin, Begun, Outcome, Prediction, Run, Source
from gateway.errors import Conflict
from gateway.store.sql.cache import keep_entry
from gateway.store.sql.connections import Connections
from gateway.store.sql.deliveries import forget_end, queue_end, queue_ends
from gateway.store.sql.idempotency import first_request, remember
from gateway.store.sql.ledger_entries import enter_hit, joined_prediction, take_back_join
from gateway.store.sql.lookup import find_run
from gateway.store.sql.queries import SQL
from gateway.store.sql.reservations import reserve
from gateway.store.sql.rows import PREDICTIONS, RUNS


class SQLiteSharing(Connections):
    """Predictions as they come about, and the identity by which they find each other."""

    async def begin(self, begin: Begin) -> Begun:
        """Let a prediction come about."""
        return await self._write(lambda db: _begin(db, begin), durable=begin.may_lead)

    async def settle_identity(
        self, run_id: str, fingerprint: str | None, cache_until: float | None, *, reason: str | None = None
    ) -> bool:
        """Give a run its final identity."""
        return await self._write(lambda db: _settle_identity(db, run_id, fingerprint, cache_until, reason))

    async def detach(self, prediction_id: str) -> None:
        """Take a joined prediction out of its run. The run goes on, whoever is left."""

        def step(db: sqlite3.Connection) -> None:
            joined = joined_prediction(db, prediction_id)
            if joined is not None:
                take_back_join(db, joined)
                db.execute(SQL["part"], {"id": prediction_id})
                db.execute(SQL["forget_key"], {"prediction_id": prediction_id})
                forget_end(db, prediction_id)

        await self._write(step, erases=True)

    async def run(self, run_id: str) -> Run | None:
        """Find a run."""
        return await self._read(lambda db: find_run(db, "run", {"id": run_id}))

    async def shared_run(self, fingerprint: str, provisional: str | None, now: float, ended_since: float) -> Run | None:
        """Find the run that `begin` would share."""
        return await self._read(
            lambda db: _run_to_hit(db, fingerprint, now, ended_since) or _run_to_join(db, fingerprint, provisional)
        )

    async def predictions_of(self, run_id: str, *, limit: int = 10_000) -> list[Prediction]:
        """List the predictions that share a run."""
        parameters = {"run_id": run_id, "limit": limit}
        return await self._read(
            lambda db: [PREDICTIONS.record(row) for row in db.execute(SQL["predictions_of_run"], parameters)]
        )

    async def deadlines(self, *, after: str = "", limit: int = 500) -> list[Prediction]:
        """List predictions with a deadline that have not ended. Those of intents have not begun."""

        def step(db: sqlite3.Connection) -> list[Prediction]:
            found = (PREDICTIONS.record(row) for row in db.execute(SQL["deadlines"], {"after": after}))
            return heapq.nsmallest(limit, found, key=operator.attrgetter("id"))

        return await self._read(step)


def _begin(db: sqlite3.Connection, begin: Begin) -> Begun:
    run, team = begin.run, begin.prediction.team
    if begin.idempotency is not None and (first := first_request(db, team, begin.idempotency, begin.now)) is not None:
        return first
    fingerprint, provisional = run.fingerprint, run.provisional
    if begin.may_hit and (shared := _run_to_hit(db, fingerprint, begin.now, begin.ended_since)) is not None:
        begun = _take_part(db, begin, shared, Outcome.HIT, Source.HIT)
        saved = enter_hit(db, replace(begin.prediction, run_id=shared.id), shared, begin.now)
        return replace(begun, saved_microusd=saved)
    shared = _run_to_join(db, fingerprint, provisional)
    if begin.may_join and shared is not None:
        return _take_part(db, begin, shared, Outcome.JOINED, Source.JOINED)
    if not begin.may_lead:
        return Begun(Outcome.NOTHING)
    if shared is not None:
        # Two open runs of one identity would be two to join.
        run = replace(run, fingerprint=None, provisional=None)
    run = replace(run, leader_id=begin.prediction.id)
    if (
        begin.demand is not None
        and (refusal := reserve(db, _reservation(begin, begin.demand), begin.demand)) is not None
    ):
        return Begun(Outcome.REFUSED, refusal=refusal)
    if db.execute(SQL["add_run"], RUNS.row(run)).rowcount == 0:
        raise Conflict("A run of this id exists already.")
    return _take_part(db, begin, run, Outcome.STARTED, begin.prediction.source)


def _reservation(begin: Begin, demand: ReservationRequest) -> Reservation:
    run = begin.run
    return Reservation(
        run_id=run.id,
        team=run.team,
        key_id=run.key_id,
        user=begin.prediction.user,
        scopes=demand.scopes(run.team, run.key_id, begin.prediction.user),
        milliseconds=demand.milliseconds,
        microusd=demand.microusd,
        at=begin.now,
    )


def _take_part(db: sqlite3.Connection, begin: Begin, run: Run, outcome: Outcome, source: Source) -> Begun:
    admitted = begin.admitted if outcome is Outcome.STARTED else None
    prediction = replace(begin.prediction, run_id=run.id, source=source, admitted=admitted)
    if db.execute(SQL["add_prediction"], PREDICTIONS.row(prediction)).rowcount == 0:
        raise Conflict("A prediction of this id exists already.")
    if begin.idempotency is not None:
        remember(db, prediction.team, begin.idempotency, prediction.id)
    if outcome is Outcome.HIT:
        queue_end(db, prediction, begin.now)
    return Begun(outcome, prediction, run)


def _run_to_hit(db: sqlite3.Connection, fingerprint: str | None, now: float, ended_since: float) -> Run | None:
    if fingerprint is None:
        return None
    return find_run(db, "run_to_hit", {"fingerprint": fingerprint, "now": now, "ended_since": ended_since})


def _run_to_join(db: sqlite3.Connection, fingerprint: str | None, provisional: str | None) -> Run | None:
    run = None
    if fingerprint is not None:
        run = find_run(db, "run_to_join", {"fingerprint": fingerprint})
    if run is None and provisional is not None:
        run = find_run(db, "run_to_join_provisionally", {"fingerprint": fingerprint, "provisional": provisional})
    return run


def _settle_identity(
    db: sqlite3.Connection, run_id: str, fingerprint: str | None, cache_until: float | None, reason: str | None
) -> bool:
    before = db.execute(SQL["end_of_run"], {"id": run_id}).fetchone()
    if reason is not None:
        db.execute(SQL["settle_reason"], {"run_id": run_id, "reason": reason})
    row = db.execute(SQL["settle_identity"], {"id": run_id, "fingerprint": fingerprint}).fetchall()
    if not row or row[0][0] != fingerprint:
        return False
    had_fingerprint, ended_at = before
    if had_fingerprint is None and ended_at is not None:
        # It ended while those who joined it did not know yet whether they may stay.
        queue_ends(db, run_id, ended_at, source=Source.JOINED)
    if cache_until is not None:
        db.execute(SQL["keep_run_until"], {"run_id": run_id, "cache_until": cache_until})
        keep_entry(db, run_id)
    return True
