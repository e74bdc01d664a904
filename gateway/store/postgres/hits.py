"""Hits in sets: one statement records all of a set (`hits.sql`). Before it, new users and values of tags are locked.

It takes the requests as one text of JSON. It returns a row for each run that answers some of them: which, what the run
cost, and the run itself, once. Sums change only for predictions that were added.
"""

from collections.abc import Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.domain import tags, windows
from gateway.domain.ledger import MOST_USERS_A_DAY, OTHER, OTHER_VALUES
from gateway.domain.records import LARGE_DOCUMENT, PredictionView, Source
from gateway.errors import Conflict
from gateway.predictions.ports.sharing import Hit, ShareRequest
from gateway.store.sql.database import Database
from gateway.store.sql.ledger_entries import lock_new_names
from gateway.store.sql.rows import PREDICTIONS, RUNS

USED_SECONDS: Final = 60
"""The time of an entry's last use is this exact. It decides which entries are evicted first."""
_NUL: Final = b"\\u0000"
_encode: Final = msgspec.json.Encoder().encode

Outcomes = list[Hit | None]


def record_hits(db: Database, requests: Sequence[ShareRequest]) -> Outcomes:
    """Record a set in one statement: see `Sharing.record_hits`. Raise `Conflict`."""
    outcomes: Outcomes = [None] * len(requests)
    asked = [row for place, request in enumerate(requests) if (row := _asked(place, request)) is not None]
    text = _encode(asked)
    if _NUL in text:
        # PostgreSQL cannot store it. The single step refuses the request that has it.
        asked = [row for row in asked if not any("\0" in value for value in row.values() if isinstance(value, str))]
        text = _encode(asked)
    if not asked:
        return outcomes
    given = [(request.prediction, windows.day_of(request.now)) for request in requests]
    lock_new_names(
        db,
        {(each.team, day, each.user or "") for each, day in given},
        {(each.team, tag, day, value) for each, day in given if each.tags for tag, value in tags.pairs(each.tags)},
    )
    parameters = {
        "asked": text.decode(),
        "most": MOST_USERS_A_DAY,
        "other": OTHER,
        "most_values": db.bounds.tag_values,
        "other_values": OTHER_VALUES,
        "used_seconds": USED_SECONDS,
        "most_bytes": LARGE_DOCUMENT,
    }
    found = added = 0
    for places, microusd, count, *columns in db.execute("record_hits", parameters):
        run, left_out, added = RUNS.record(tuple(columns[:-1])), columns[-1], count
        found += len(places)
        for place in places:
            prediction = replace(requests[place].prediction, run_id=run.id, source=Source.HIT)
            outcomes[place] = Hit(PredictionView(prediction, run, left_out), microusd)
    if added < found:
        raise Conflict("A prediction of this id exists already.")
    return outcomes


def _asked(place: int, request: ShareRequest) -> dict[str, object] | None:
    wanted = request.may_hit
    if wanted is None or request.idempotency is not None or request.webhook_place is not None:
        return None
    return {
        "place": place,
        "fingerprint": wanted.fingerprint,
        "ended_since": wanted.ended_since,
        "now": request.now,
        "day": windows.day_of(request.now),
        **dict(zip(PREDICTIONS.columns, PREDICTIONS.row(request.prediction), strict=True)),
    }
