"""Compute how long a run's result can be cached."""

from collections.abc import Callable

from gateway.domain.documents import output_of
from gateway.domain.records import Run
from gateway.outputs.rules import outputs
from gateway.sharing.rules import caching


class ResultLifetime:
    """Combines the cache's time to live with the lifetime of the output's links and of their stored copies."""

    def __init__(self, ttl_of: Callable[[Run], float | None], *, copies_ttl_seconds: float) -> None:
        self._ttl_of = ttl_of
        self._copies_ttl_seconds = copies_ttl_seconds

    def keep_until(self, run: Run, document: bytes, ended_at: float) -> float | None:
        """Return the epoch time until which a successful run can be cached; `None` if it cannot."""
        ttl = self._ttl_of(run)
        if ttl is None:
            return None
        output = output_of(document)
        has_links, are_kept = caching.has_links(output), bool(run.copies) and outputs.are_kept(output, run.copies)
        until = caching.usable_until(ended_at, ttl, has_links=has_links, outputs_persisted=are_kept)
        if are_kept:
            until = min(until, outputs.usable_until(run.copies, self._copies_ttl_seconds))
        return until if until > ended_at else None
