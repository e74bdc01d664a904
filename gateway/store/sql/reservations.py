"""Reservations of runs in progress, and the counters of their scopes.

A reservation is made in the transaction of the intent and released in that of the settlement. None leaks, because every
unfinished run is followed, adopted or discarded after a crash.
"""

from collections.abc import Iterable

from gateway.domain import quota, windows
from gateway.domain.ledger import Reservation
from gateway.domain.quota import Counters, Granted, Refused, ReservationRequest
from gateway.domain.windows import Window
from gateway.store.sql.database import Database
from gateway.store.sql.locks import Lock
from gateway.store.sql.rows import RESERVATIONS


def reserve(db: Database, wanted: Reservation, demand: ReservationRequest) -> Refused | None:
    """Check every limit, then reserve under all of them. On a refusal, reserve nothing and return it."""
    limited = [allowance.scope for allowance in demand.allowances]
    db.lock(Lock.TEAM, wanted.team)
    # Those that are changed too, so that no step waits for one of them while it has another.
    db.lock(Lock.METERS, *{*limited, *wanted.scopes})
    decision = quota.decide(read_meters(db, limited, wanted.at), demand, wanted.at)
    if isinstance(decision, Refused):
        return decision
    db.execute("add_reservation", RESERVATIONS.row(wanted))
    _change_meters(db, wanted, 1, decision)
    return None


def release(db: Database, run_id: str) -> Reservation | None:
    """Delete a run's reservation and return it; `None` if it has none."""
    rows = db.execute("delete_reservation", {"run_id": run_id}).fetchall()
    if not rows:
        return None
    held = RESERVATIONS.record(rows[0])
    _change_meters(db, held, -1, Granted({}))
    return held


def _change_meters(db: Database, held: Reservation, sign: int, granted: Granted) -> None:
    # In the same order in every step, so that two steps never wait for each other.
    for scope in sorted(held.scopes):
        change = {
            "scope": scope,
            "open": sign,
            "milliseconds": sign * held.milliseconds,
            "microusd": sign * held.microusd,
            "full_at": granted.full_at.get(scope, 0.0),
            "takes": scope in granted.full_at,
        }
        db.execute("change_meter", change)


def read_meters(db: Database, scopes: Iterable[str], now: float) -> dict[str, Counters]:
    """Return the counters of each scope at `now`."""
    day = windows.day_of(now)
    window = {
        "day": day,
        "first": windows.first_day(Window.MONTH, day),
        "end": windows.day_of(windows.ends_at(Window.MONTH, now)),
    }
    return {scope: _meter(db, scope, window) for scope in scopes}


def _meter(db: Database, scope: str, window: dict[str, int]) -> Counters:
    held = db.execute("meter", {"scope": scope}).fetchone() or (0, 0, 0, 0.0)
    spent = db.execute("spent_in", {"scope": scope, **window}).fetchone()
    return Counters(
        open=held[0],
        held_milliseconds=held[1],
        held_microusd=held[2],
        full_at=float(held[3]),
        day_milliseconds=spent[0],
        day_microusd=spent[1],
        month_milliseconds=spent[2],
        month_microusd=spent[3],
    )
