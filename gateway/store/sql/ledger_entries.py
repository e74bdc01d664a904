"""Lines of the ledger, and the sums that change with each: parts of the steps that end runs and add hits."""

import sqlite3
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from gateway.domain import ledger, quota, windows
from gateway.domain.ledger import MOST_USERS_A_DAY, OTHER, Entry, EntryKind, Settlement
from gateway.domain.records import Prediction, Run
from gateway.store.sql.queries import SQL
from gateway.store.sql.reservations import release
from gateway.store.sql.rows import ENTRIES, PREDICTIONS

Joiner = tuple[str, str, str | None]
"""Whose prediction joined a run: team, key and user."""

_DETACHED = "detached"
_SUMS = ("runs", "joined", "hits", "milliseconds", "microusd", "saved_microusd")
_NOTHING = dict.fromkeys(_SUMS, 0)


def settle(db: sqlite3.Connection, run_id: str, settlement: Settlement, joined: Counter[Joiner] | None = None) -> bool:
    """Release the reservation of a run that has ended, and enter what it cost and what each joined prediction saved.

    Call it in the step that ends the run. `joined` counts the predictions that joined; they are read if it is `None`.
    A run is settled once: return whether this call did it.
    """
    held = release(db, run_id)
    payer = db.execute(SQL["payer"], {"run_id": run_id}).fetchone()
    if payer is None:
        return False
    if settlement.at_estimate and held is not None:
        settlement = replace(settlement, microusd=held.microusd, milliseconds=held.milliseconds)
    team, key_id, user, leader_id = payer
    user = user if held is None else held.user
    scopes = quota.scopes_of(team, key_id, user) if held is None else held.scopes
    entry = Entry(
        at=settlement.at,
        team=team,
        key_id=key_id,
        user=user,
        target=settlement.target,
        run_id=run_id,
        prediction_id=leader_id or None,
        kind=EntryKind.SPEND,
        milliseconds=settlement.milliseconds,
        microusd=settlement.microusd,
        reason=settlement.reason,
        scopes=scopes,
    )
    if not insert_entry(db, entry):
        return False
    if joined is None:
        joined = Counter(db.execute(SQL["who_joined"], {"run_id": run_id}))
    if joined:
        _enter_joined(db, run_id, settlement, joined)
    return True


def _enter_joined(db: sqlite3.Connection, run_id: str, settlement: Settlement, joined: Counter[Joiner]) -> None:
    """Enter a line for each joined prediction, of which there may be thousands, in few statements."""
    day, saved = windows.day_of(settlement.at), settlement.microusd
    lines = {"run_id": run_id, "day": day, "at": settlement.at, "target": settlement.target, "microusd": saved}
    db.execute(SQL["enter_joined"], lines)
    for (team, key_id, user), count in joined.items():
        _count(db, day, team, key_id, user, settlement.target, joined=count, saved_microusd=count * saved)


class NewHit(NamedTuple):
    """A prediction that was added to a run that has ended, and what its cache entry says."""

    prediction: Prediction
    run: Run
    at: float
    microusd: int
    """The run's cost, which the hit saves. The entry has it even if the ledger's line has been deleted."""
    settled_as: str
    """The target as the run was settled; empty if the ledger had no line."""


def enter_hits(db: sqlite3.Connection, hits: Sequence[NewHit]) -> None:
    """Enter a line for each hit, and mark the cache entries as used. Each sum and each entry is changed once."""
    lines: list[tuple[int | float | str | None, ...]] = []
    by_model: dict[tuple[str, int, str, str], list[int]] = {}
    # In the order of the hits: the first users of a day are counted by name.
    by_user: dict[tuple[str, int, str], list[int]] = {}
    used: dict[str, float] = {}
    for prediction, run, at, microusd, settled_as in hits:
        day, target = windows.day_of(at), settled_as or ledger.model_of(run.target)
        team, key_id, user = prediction.team, prediction.key_id, prediction.user
        lines.append((day, at, team, key_id, user, target, run.id, prediction.id, microusd))
        for sums in (
            by_model.setdefault((team, day, key_id, target), [0, 0]),
            by_user.setdefault((team, day, user or ""), [0, 0]),
        ):
            sums[0] += 1
            sums[1] += microusd
        used[run.id] = max(at, used.get(run.id, at))
    db.executemany(SQL["enter_hits"], lines)
    for (team, day, key_id, target), (count, saved) in by_model.items():
        _count_model(db, day, team, key_id, target, _NOTHING | {"hits": count, "saved_microusd": saved})
    for (team, day, user), (count, saved) in by_user.items():
        count_user(db, day, team, user, _NOTHING | {"hits": count, "saved_microusd": saved})
    db.executemany(SQL["use_entry"], [{"run_id": run_id, "now": at} for run_id, at in used.items()])


def take_back_join(db: sqlite3.Connection, prediction: Prediction) -> None:
    """Take back the saved amount of a prediction that is removed from its run, if the run has been settled."""
    settled = settlement_of(db, prediction.run_id)
    if settled is None:
        return
    back = Entry(
        # The day of the line that it takes back.
        at=settled.at,
        team=prediction.team,
        key_id=prediction.key_id,
        user=prediction.user,
        target=settled.target,
        run_id=prediction.run_id,
        prediction_id=prediction.id,
        kind=EntryKind.SAVED_JOINED,
        microusd=-settled.microusd,
        reason=_DETACHED,
    )
    insert_entry(db, back)


def settlement_of(db: sqlite3.Connection, run_id: str) -> Entry | None:
    """Return the line that settled a run, or `None` if it has not been settled."""
    row = db.execute(SQL["settlement"], {"run_id": run_id}).fetchone()
    return None if row is None else ENTRIES.record(row)


def joined_prediction(db: sqlite3.Connection, prediction_id: str) -> Prediction | None:
    """Return a prediction if it joined its run."""
    row = db.execute(SQL["joined_prediction"], {"id": prediction_id}).fetchone()
    return None if row is None else PREDICTIONS.record(row)


def insert_entry(db: sqlite3.Connection, entry: Entry) -> bool:
    """Add one line, and count it in every sum. A run's second settlement is not added: return whether it was."""
    day = windows.day_of(entry.at)
    if db.execute(SQL["insert_entry"], (day, *ENTRIES.row(entry))).rowcount == 0:
        return False
    amounts = {"milliseconds": entry.milliseconds, "microusd": entry.microusd}
    match entry.kind:
        case EntryKind.SPEND:
            counted = {"runs": 1, **amounts}
        case EntryKind.ADJUSTMENT:
            counted = amounts
        case EntryKind.SAVED_HIT:
            counted = {"hits": 1, "saved_microusd": entry.microusd}
        case EntryKind.SAVED_JOINED:
            counted = {"joined": 1 if not entry.reason else -1, "saved_microusd": entry.microusd}
    _count(db, day, entry.team, entry.key_id, entry.user, entry.target, **counted)
    for scope in entry.scopes:
        db.execute(SQL["spend"], {"scope": scope, "day": day, **amounts})
    return True


def _count(
    db: sqlite3.Connection, day: int, team: str, key_id: str, user: str | None, target: str, **counted: int
) -> None:
    sums = _NOTHING | counted
    _count_model(db, day, team, key_id, target, sums)
    count_user(db, day, team, user or "", sums)


def _count_model(db: sqlite3.Connection, day: int, team: str, key_id: str, target: str, sums: dict[str, int]) -> None:
    db.execute(SQL["count_usage"], {"team": team, "day": day, "key_id": key_id, "target": target, **sums})


def forget_users(db: sqlite3.Connection, before: int, limit: int) -> int:
    """Count users of days before that together from now on; return how many went."""
    went = db.execute(SQL["old_users"], {"before": before, "limit": limit}).fetchall()
    for team, day, user, *sums in went:
        db.execute(SQL["forget_user"], {"team": team, "day": day, "user": user})
        count_user(db, day, team, OTHER, dict(zip(_SUMS, sums, strict=True)))
    return len(went)


def count_user(db: sqlite3.Connection, day: int, team: str, user: str, sums: dict[str, int]) -> None:
    """Count something for a user: by name for the first of a team and day, for the rest together."""
    who = {"team": team, "day": day, "user": user, "most": MOST_USERS_A_DAY, "other": OTHER}
    db.execute(SQL["count_user"], {**who, **sums})
