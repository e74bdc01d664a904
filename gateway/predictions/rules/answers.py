"""What upstream's answers about a run mean: whether they are news, and what follows when they cannot be read."""

from msgspec.structs import replace

from gateway.domain import documents
from gateway.domain.ledger import Settlement
from gateway.domain.records import Run
from gateway.money.rules.usage import Doubt

# While the answers about a run cannot be read, polls come at intervals of a tenth of that time, within these bounds.
_SHARE = 0.1
_SHORTEST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0


def is_ahead(body: bytes, run: Run) -> bool:
    """Say whether a body is about a run, and further on than what is known of it."""
    try:
        snapshot = documents.read_snapshot(body)
    except ValueError:
        return False
    return snapshot.upstream_id == run.upstream_id and snapshot.status.rank > run.status.rank


def unreadable_pause(since: float | None, now: float) -> float:
    """Return the seconds to wait before the next poll of a run whose answers cannot be read since a time."""
    return 0.0 if since is None else max(_SHORTEST_PAUSE, min(_LONGEST_PAUSE, (now - since) * _SHARE))


def settled(settlement: Settlement, doubt: Doubt | None) -> Settlement:
    """Return the settlement of a run with a doubt about its end, if there is one.

    Nothing is known of the cost of a run that cannot be read: what was reserved for it is charged.
    """
    if doubt is None:
        return settlement
    if doubt is Doubt.RUN_UNREADABLE:
        settlement = replace(settlement, reason=settlement.status, at_estimate=True)
    return settlement.with_doubt(doubt)
