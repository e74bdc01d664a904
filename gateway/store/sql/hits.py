"""Hits: which finished run answers a request, and many hits in one step.

A set of hits costs much less than as many single steps: rows of one table are inserted by one statement, a run that
answers several requests is read once, and each sum changes once.
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from gateway.domain.records import LARGE_DOCUMENT, PredictionView, Run, Source
from gateway.errors import Conflict
from gateway.predictions.ports.sharing import FinishedRuns, Hit, ShareRequest
from gateway.store.sql.database import Database
from gateway.store.sql.ledger_entries import NewHit, enter_hits
from gateway.store.sql.rows import PREDICTIONS, RUNS

_ALWAYS = float("-inf")


class Entry(NamedTuple):
    """A cache entry, with the run that it stands for."""

    run: Run
    left_out: int
    """Bytes of the run's document, if it is large and was left out."""
    ended_at: float
    cache_until: float
    microusd: int
    settled_as: str


def find_entry(db: Database, wanted: FinishedRuns | None, now: float) -> Entry | None:
    """Return the entry that answers a request: the one whose run ended last."""
    return None if wanted is None else _find(db, wanted.fingerprint, wanted.ended_since, now)


def record_hits(db: Database, requests: Sequence[ShareRequest]) -> list[Hit | None]:
    """Add the predictions that finished runs answer: see `Sharing.record_hits`. Raise `Conflict`."""
    newest: dict[str, Entry | None] = {}
    outcomes: list[Hit | None] = []
    hits: list[NewHit] = []
    for request in requests:
        entry = _entry_of(db, request, newest)
        if entry is None:
            outcomes.append(None)
            continue
        prediction = replace(request.prediction, run_id=entry.run.id, source=Source.HIT)
        hits.append(NewHit(prediction, entry.run, request.now, entry.microusd, entry.settled_as))
        outcomes.append(Hit(PredictionView(prediction, entry.run, entry.left_out), entry.microusd))
    if hits:
        rows = [PREDICTIONS.row(hit.prediction) for hit in hits]
        if db.executemany("add_prediction", rows).rowcount < len(rows):
            raise Conflict("A prediction of this id exists already.")
        enter_hits(db, hits)
    return outcomes


def _entry_of(db: Database, request: ShareRequest, newest: dict[str, Entry | None]) -> Entry | None:
    """Return the entry that answers a request. `newest` has the newest one of each fingerprint, if it was read."""
    wanted = request.may_hit
    if wanted is None or request.idempotency is not None or request.webhook_place is not None:
        return None
    fingerprint = wanted.fingerprint
    if fingerprint in newest:
        entry = newest[fingerprint]
    else:
        entry = newest[fingerprint] = _find(db, fingerprint, _ALWAYS, _ALWAYS)
    if entry is None or (entry.ended_at >= wanted.ended_since and request.now < entry.cache_until):
        return entry
    # An older result may be kept for longer.
    return find_entry(db, wanted, request.now)


def _find(db: Database, fingerprint: str, ended_since: float, now: float) -> Entry | None:
    parameters = {"fingerprint": fingerprint, "ended_since": ended_since, "now": now, "most_bytes": LARGE_DOCUMENT}
    row = db.execute("entry_to_hit", parameters).fetchone()
    return None if row is None else Entry(RUNS.record(row[4:-1]), row[-1], *row[:4])
