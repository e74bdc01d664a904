"""Runs that several predictions share: how predictions come about."""

from typing import Protocol

from gateway.domain.records import Begin, Begun, CacheStats, Prediction, Run
from gateway.predictions.ports.predictions import Predictions


class Sharing(Protocol):
    """Runs that several predictions share: found, joined, kept for later (docs/architecture.md, Create and Sharing).

    A run is *open* while it is `intended` or `live` and upstream has not been asked to cancel it. At most one open run
    has a given fingerprint. Until a run is `live` its predictions have been shown to nobody: `prediction`,
    `predictions` and `prediction_by_ticket` pass over them.
    """

    async def begin(self, begin: Begin) -> Begun:
        """Let a prediction come about in the first way that is possible and allowed. One step.

        0. An idempotency key of the team that is known and has not expired: `mismatched` if the body differs,
           `pending` while its run is `intended`, else `replayed` with the first request's prediction.
        1. `may_hit`: the newest `succeeded` run of the fingerprint with `now < cache_until`, data not removed and
           `ended_at >= ended_since`: the prediction is added to it as a `hit`. The use is noted, for eviction; the
           ledger has a line with what the run cost, as saved.
        2. `may_join`: an open run whose fingerprint is the intent's, or whose provisional identity is the intent's
           `provisional`: the prediction is added to it as `joined`. Where both have fingerprints, those decide.
        3. `may_lead`: the intent is recorded with the prediction as its leader (`leader_id` is its id, its `source` as
           given, with what `admitted` says). An open run of that fingerprint that may not be joined loses nothing; the
           intent is then recorded without a fingerprint. If there is a `demand`, all its limits are checked first: one
           that is in the way makes it `refused`, with the limit, and nothing is recorded nor taken. Else the estimate
           is reserved for the run, and taken from every limit, in the same step.
        4. Else `nothing`, and nothing is recorded.

        Raises `gateway.errors.Conflict` for the id of a run or prediction that exists. What is recorded is kept;
        durable when `may_lead`. The idempotency key is remembered with the prediction,
        whichever way it came about.
        """
        ...

    async def mark_uncertain(self, run_id: str, at: float) -> None:
        """Note that upstream may or may not have taken an intent's create. Kept."""
        ...

    async def settle_identity(
        self, run_id: str, fingerprint: str | None, cache_until: float | None, *, reason: str | None = None
    ) -> bool:
        """Give a run its final identity in place of the provisional one. Kept. One step.

        If another open run has the fingerprint already, the run stays without one. `cache_until` counts only if the
        run has succeeded. `reason` takes the place of `model-unknown` in its predictions. Return whether the run now
        has `fingerprint`.
        """
        ...

    async def detach(self, prediction_id: str) -> None:
        """Take a joined prediction that nobody has seen back out of its run, its idempotency key too.

        If the run has been settled, what the prediction was said to save is taken back by a line of its own.
        """
        ...

    async def run(self, run_id: str) -> Run | None:
        """Find a run."""
        ...

    async def shared_run(self, fingerprint: str, provisional: str | None, now: float, ended_since: float) -> Run | None:
        """Find the run that `begin` would share at `now`: a finished one before an open one. Changes nothing."""
        ...

    async def predictions_of(self, run_id: str, *, limit: int = 10_000) -> list[Prediction]:
        """List the predictions that share a run, in order of creation."""
        ...

    async def deadlines(self, *, after: str = "", limit: int = 500) -> list[Prediction]:
        """List predictions of live runs with a deadline that have not ended, by id, beginning after `after`."""
        ...

    async def cache_stats(self, now: float, team: str | None = None) -> CacheStats:
        """Sum up the runs that may answer later requests, of one team or of all."""
        ...

    async def purge_cache(self, *, team: str | None = None, target: str | None = None, limit: int = 500) -> int:
        """Let at most `limit` runs, of a team, of a target (a glob of `Run.target`), or all, answer no more requests.

        Kept. Return how many, so that the caller can go on in small steps.
        """
        ...

    async def evict_cache(self, max_bytes: int, now: float, limit: int = 100) -> int:
        """Let the least recently used runs answer no more requests until the documents of the rest fit. Kept.

        Return how many went, at most `limit`. Runs whose time is over do not count and do not go.
        """
        ...

    async def delete_expired_idempotency(self, before: float, limit: int) -> int:
        """Forget at most `limit` idempotency keys that expired before that; return how many."""
        ...


class CreateStore(Predictions, Sharing, Protocol):
    """What creates ask of the store."""
