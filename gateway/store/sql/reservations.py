"""What is held for runs under way. A reservation comes with the intent and goes with the settlement, in their steps.

It lives with its run, which is followed, adopted or discarded after every crash: so none leaks.
"""

import sqlite3
from collections.abc import Iterable

from gateway.domain import quota, windows
from gateway.domain.ledger import Reservation
from gateway.domain.quota import Counters, Granted, Refused, ReservationRequest
from gateway.domain.windows import Window
from gateway.store.sql.queries import SQL
from gateway.store.sql.rows import RESERVATIONS


def reserve(db: sqlite3.Connection, wanted: Reservation, demand: ReservationRequest) -> Refused | None:
    """Check every limit, then take from all of them; on a refusal take nothing and say what is in the way."""
    limited = [allowance.scope for allowance in demand.allowances]
    decision = quota.decide(read_meters(db, limited, wanted.at), demand, wanted.at)
    if isinstance(decision, Refused):
        return decision
    _hold(db, wanted, decision)
    return None


def _hold(db: sqlite3.Connection, wanted: Reservation, granted: Granted) -> None:
    db.execute(SQL["hold"], RESERVATIONS.row(wanted))
    _move(db, wanted, 1, granted)


def release(db: sqlite3.Connection, run_id: str) -> Reservation | None:
    """Let go of what is held for a run, if anything is."""
    rows = db.execute(SQL["release"], {"run_id": run_id}).fetchall()
    if not rows:
        return None
    held = RESERVATIONS.record(rows[0])
    _move(db, held, -1, Granted({}))
    return held


def _move(db: sqlite3.Connection, held: Reservation, sign: int, granted: Granted) -> None:
    for scope in held.scopes:
        move = {
            "scope": scope,
            "open": sign,
            "milliseconds": sign * held.milliseconds,
            "microusd": sign * held.microusd,
            "full_at": granted.full_at.get(scope, 0.0),
            "takes": scope in granted.full_at,
        }
        db.execute(SQL["move_meter"], move)


def read_meters(db: sqlite3.Connection, scopes: Iterable[str], now: float) -> dict[str, Counters]:
    """Return what is counted for each of the scopes at that time."""
    day = windows.day_of(now)
    window = {
        "day": day,
        "first": windows.first_day(Window.MONTH, day),
        "end": windows.day_of(windows.ends_at(Window.MONTH, now)),
    }
    return {scope: _meter(db, scope, window) for scope in scopes}


def _meter(db: sqlite3.Connection, scope: str, window: dict[str, int]) -> Counters:
    held = db.execute(SQL["meter"], {"scope": scope}).fetchone() or (0, 0, 0, 0.0)
    spent = db.execute(SQL["spent_in"], {"scope": scope, **window}).fetchone()
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
