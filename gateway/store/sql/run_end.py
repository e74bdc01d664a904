"""The end of a run: settled in the step that records it, and returned as one value."""

from collections import Counter
from typing import NamedTuple

from gateway.domain.ledger import Settlement
from gateway.domain.records import Run, RunState, Source
from gateway.domain.run_end import MAX_LISTED, RunEnded, SharedBy
from gateway.store.sql.cache import keep_entry
from gateway.store.sql.database import Database
from gateway.store.sql.ledger_entries import Joiner, settle, settlement_of
from gateway.store.sql.lookup import find_run


class _Sharing(NamedTuple):
    """Who shared a run."""

    shared_by: tuple[SharedBy, ...]
    prediction_ids: tuple[str, ...]
    joined: Counter[Joiner]
    user: str | None
    """The user of the prediction that started it."""
    tags: str
    """Its cost tags."""


def record_end(db: Database, run: Run, settlement: Settlement) -> RunEnded:
    """Settle a run that has just been recorded as ended, and return its end.

    Call it in the step that ends the run. A run that was settled before keeps that settlement.
    """
    sharing = _sharing(db, run.id)
    if not settle(db, run.id, settlement, sharing.joined) or settlement.at_estimate:
        settlement = _settled(db, run.id) or settlement
    if run.cache_until is not None:
        keep_entry(db, run.id)
    return _ended(run, settlement, sharing)


def find_end(db: Database, run_id: str) -> RunEnded | None:
    """Return the end of a run that an earlier step has ended; `None` while it has not ended."""
    run = find_run(db, "run", {"id": run_id})
    if run is None or run.state is not RunState.ENDED:
        return None
    # The ledger's line may have been pruned.
    settlement = _settled(db, run_id) or Settlement(at=run.ended_at or run.intended_at)
    return _ended(run, settlement, _sharing(db, run_id))


def _ended(run: Run, settlement: Settlement, sharing: _Sharing) -> RunEnded:
    return RunEnded(
        run=run,
        settlement=settlement,
        shared_by=sharing.shared_by,
        user=sharing.user,
        tags=sharing.tags,
        prediction_ids=sharing.prediction_ids,
    )


def _settled(db: Database, run_id: str) -> Settlement | None:
    entry = settlement_of(db, run_id)
    if entry is None:
        return None
    return Settlement(
        at=entry.at,
        microusd=entry.microusd,
        milliseconds=entry.milliseconds,
        target=entry.target,
        reason=entry.reason,
    )


def _sharing(db: Database, run_id: str) -> _Sharing:
    """Count the predictions of a run, of which there may be thousands, in one pass."""
    ids: list[str] = []
    joined: Counter[Joiner] = Counter()
    groups: Counter[tuple[str, str, bool, bool]] = Counter()
    started_for: tuple[str | None, str] = (None, "")
    for prediction_id, team, key_id, user, source, waits, hooked, tags in db.execute("sharers", {"run_id": run_id}):
        if len(ids) < MAX_LISTED:
            ids.append(prediction_id)
        groups[team, source, bool(waits), bool(hooked)] += 1
        if source == Source.JOINED:
            joined[team, key_id, user, tags] += 1
        else:
            started_for = user, tags
    return _Sharing(_shared_by(groups), tuple(ids), joined, *started_for)


def _shared_by(groups: Counter[tuple[str, str, bool, bool]]) -> tuple[SharedBy, ...]:
    made: dict[tuple[str, str], SharedBy] = {}
    for (team, source, waits, hooked), count in groups.items():
        known = made.get((team, source))
        made[team, source] = SharedBy(
            team=team,
            source=Source(source),
            predictions=count + (known.predictions if known else 0),
            waiting=count * waits + (known.waiting if known else 0),
            webhooks=count * (waits and hooked) + (known.webhooks if known else 0),
        )
    return tuple(made.values())
