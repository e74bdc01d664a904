"""Starting runs, and sharing them between predictions."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec

from gateway.domain.admission_record import Admitted
from gateway.domain.audit import AuditedOperation
from gateway.domain.quota import Refused as LimitRefused
from gateway.domain.quota import ReservationRequest
from gateway.domain.records import CacheStats, Prediction, PredictionView, Run
from gateway.domain.webhook_places import WebhookPlace
from gateway.predictions.ports.predictions import Predictions

MOST_HITS: Final = 200
"""The most hits of one step. It bounds the time that other steps wait for this one."""

_SHA256_LENGTH = 64


class Idempotency(msgspec.Struct, frozen=True):
    """A caller's `Idempotency-Key`, unique within its team."""

    key: str
    body_digest: str
    """A keyed digest of the request."""
    expires_at: float
    older_digest: Callable[[], str] | None = None
    """Computes the digest as versions before 1.0 recorded it: a plain SHA-256. Their keys expire within a day."""

    def is_of(self, recorded: str) -> bool:
        """Return whether a recorded digest is that of this request."""
        if recorded == self.body_digest:
            return True
        return self.older_digest is not None and len(recorded) == _SHA256_LENGTH and recorded == self.older_digest()


class FinishedRuns(msgspec.Struct, frozen=True):
    """The finished runs that can answer a request: of this fingerprint, and ended at `ended_since` or later."""

    fingerprint: str
    ended_since: float = 0.0


class OpenRuns(msgspec.Struct, frozen=True):
    """The open runs that a request can join: of this fingerprint, or of this provisional identity."""

    fingerprint: str | None = None
    provisional: str | None = None


class ShareRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A new prediction, and the runs that it can share."""

    prediction: Prediction
    """Has a new id. The store sets `run_id`, and for a hit or a join `source`."""
    now: float
    may_hit: FinishedRuns | None = None
    may_join: OpenRuns | None = None
    idempotency: Idempotency | None = None
    webhook_place: WebhookPlace | None = None
    """The place in the webhook queue that the prediction needs; `None` without a webhook."""
    unnamed_version: str | None = None
    """The version id, if the request was identified without knowing its model."""


class Hit(msgspec.Struct, frozen=True):
    """The prediction was added to a finished run, which cost `saved_microusd`."""

    view: PredictionView
    saved_microusd: int


class Joined(msgspec.Struct, frozen=True):
    """The prediction was added to an open run."""

    view: PredictionView


class Replayed(msgspec.Struct, frozen=True):
    """The idempotency key is known: `view` is the first request's prediction. Nothing was recorded."""

    view: PredictionView


class Pending(msgspec.Struct, frozen=True):
    """The first request with this idempotency key has no prediction to show yet. Nothing was recorded."""


class Mismatched(msgspec.Struct, frozen=True):
    """The idempotency key was used for another request. Nothing was recorded."""


class ModelNamed(msgspec.Struct, frozen=True):
    """The model of `unnamed_version` is known by now, so the request has another identity. Nothing was recorded."""


class Unidentified(msgspec.Struct, frozen=True):
    """`run` has succeeded with the request's provisional identity, and has no final one yet. Nothing was recorded."""

    run: Run


class Nothing(msgspec.Struct, frozen=True):
    """There is no run to share. Nothing was recorded."""


class Started(msgspec.Struct, frozen=True):
    """The intent and its prediction, the starter, were recorded."""

    view: PredictionView


class Refused(msgspec.Struct, frozen=True):
    """A limit does not allow the run, or the webhook queue has no place. Nothing was recorded or reserved."""

    refusal: LimitRefused


Shared = Hit | Joined | Replayed | Pending | Mismatched | Unidentified | ModelNamed
ShareOutcome = Shared | Nothing | Refused
StartOutcome = Shared | Started | Refused


class HitRequests(Protocol):
    """Requests of which a step takes a part when it begins, such as a list."""

    def __getitem__(self, chosen: slice, /) -> Sequence[ShareRequest]:
        """Return a part of the requests."""
        ...


class Sharing(Protocol):
    """Runs that several predictions share: found, joined, kept for later (docs/architecture.md, Create and Sharing).

    A run is *open* while it is `intended` or `live` and upstream has not been asked to cancel it. At most one open run
    has a given fingerprint. The predictions of a run are not visible before it is `live`: `prediction`,
    `predictions` and `prediction_by_ticket` do not return them.
    """

    def share(self, request: ShareRequest) -> Awaitable[ShareOutcome]:
        """Add the prediction to a run that exists. One step. Kept, not durable.

        The first of these that applies is the outcome:

        1. The team's idempotency key is known and has not expired: `Mismatched` if the body differs, `Pending` while
           its run is `intended`, else `Replayed`.
        2. `may_hit` finds a `succeeded` run with `now < cache_until` whose data has not been removed: `Hit`, on the
           run that ended last. The step marks the cache entry as used and writes a ledger line with the amount saved.
        3. `may_join` finds an open run: `Joined`. If both the run and the request have a fingerprint, the fingerprints
           decide, whatever the provisional identities say.
        4. A run with the provisional identity of `may_join` has succeeded, and has no final identity yet:
           `Unidentified`. Once it has that (`settle_identity`), it may be a hit.
        5. The model of `unnamed_version` was recorded (`learn_version`): `ModelNamed`. A run that was started before
           may have its final identity, by which this request does not look for it.
        6. `Nothing`.

        A hit or a join with a webhook takes the place of its `completed` event (`webhook_place`) in the same step. If
        no place is free, the outcome is `Refused` in place of `Hit` or `Joined`.

        A hit or a join remembers the idempotency key with its prediction. Raises `gateway.errors.Conflict` if the
        prediction's id exists.
        """
        ...

    def record_hits(self, requests: HitRequests) -> asyncio.Future[list[Hit | None]]:
        """Add predictions to finished runs: what `share` would do for each request that is a hit. One step. Kept.

        The result has, in order, `Hit` as `share` returns it, or `None` where `may_hit` finds no run. Nothing is
        recorded for those: they are for `share`. So are requests with an idempotency key or a webhook, which are
        `None` here. If the id of a prediction exists already, nothing is recorded for any request, and the future
        raises `gateway.errors.Conflict`.

        Requests may be appended to `requests` until the step begins: so those that come while the store is busy are
        recorded as soon as it is free. The step takes what there is then, at most `MOST_HITS`, by one slice, which may
        be taken in another thread. The result tells how many it took. If the step fails, it has recorded none, unless
        it is only late: then it may have recorded those that it took. All have the step's deadline, which counts from
        this call.

        Returns a future at once, so that nobody needs a task to wait for it. Raises `StoreUnavailable` if the step
        cannot be queued.
        """
        ...

    def start(
        self,
        request: ShareRequest,
        run: Run,
        *,
        reservation: ReservationRequest | None = None,
        admitted: Admitted | None = None,
    ) -> Awaitable[StartOutcome]:
        """Record the intent `run` with the prediction as its starter, unless a run can be shared. One step. Durable.

        A run may have started or ended since `share` found nothing, so the step first repeats the checks of `share`. If
        they find something, that is the outcome. Then it checks every limit of `reservation`: `Refused` if one does not
        allow the run. Else `Started`: the step records the intent (`leader_id` is the prediction's id), the prediction
        with `source` as given and with `admitted` (else that of the prediction), the reservation in every counter, the
        place in the webhook queue, and the idempotency key. Without `reservation` no limit is checked and nothing is
        reserved.

        If an open run that the request must not join has the intent's identity, that run keeps it, and the intent is
        recorded with neither fingerprint nor provisional identity. Raises `gateway.errors.Conflict` if the id of the
        run or of the prediction exists.
        """
        ...

    async def mark_uncertain(self, run_id: str, at: float, *, is_passed_on: bool = False) -> None:
        """Record that upstream may or may not have taken the create of an intent. Kept. The first time stands.

        The owner only. With `is_passed_on` the intent is nobody's from then on: the node that leads takes it over.
        """
        ...

    async def intents(self, path: str, *, after: str = "", limit: int = 50) -> list[Run]:
        """List the intents of all nodes for an upstream route, by run id, beginning after `after`."""
        ...

    async def settle_identity(
        self, run_id: str, fingerprint: str | None, cache_until: float | None, *, reason: str | None = None
    ) -> bool:
        """Give a run its final identity in place of the provisional one. Kept. One step.

        If another open run has the fingerprint already, the run stays without one. `cache_until` counts only if the
        run has succeeded. `reason` replaces `model-unknown` in the run's predictions. Return whether the run now has
        `fingerprint`.
        """
        ...

    async def detach(self, prediction_id: str) -> None:
        """Remove a joined prediction that nobody has seen from its run, with its idempotency key. Kept. One step.

        If the run has been settled, a ledger line takes back the amount that the prediction was said to save.
        """
        ...

    async def run(self, run_id: str) -> Run | None:
        """Find a run."""
        ...

    async def runs_by_id(self, run_ids: Sequence[str], *, most_bytes: int) -> dict[str, Run]:
        """Find runs. One whose document and request have more than `most_bytes` is without them."""
        ...

    async def shared_run(self, may_hit: FinishedRuns | None, may_join: OpenRuns | None, now: float) -> Run | None:
        """Find the run that `share` would choose: a finished one before an open one. Changes nothing."""
        ...

    async def predictions_of(self, run_id: str, *, limit: int = 10_000) -> list[Prediction]:
        """List the predictions that share a run, in order of creation."""
        ...

    async def deadlines(self, *, after: str = "", limit: int = 500) -> list[Prediction]:
        """List predictions of live runs with a deadline that have not ended, by id, beginning after `after`."""
        ...

    async def cache_stats(self, now: float, team: str | None = None) -> CacheStats:
        """Sum up the runs that can answer later requests, of one team or of all."""
        ...

    async def purge_cache(
        self,
        operation: AuditedOperation,
        *,
        team: str | None = None,
        target: str | None = None,
        limit: int = 500,
        purged_before: int = 0,
    ) -> int:
        """Remove at most `limit` cache entries: of a team, of a target (a glob of `Run.target`), or of all. Kept.

        Return how many were removed, so that the caller can repeat the call until none is left. `purged_before` is the
        number that earlier calls of the operation have removed: the audit log has one entry for all of them.
        """
        ...

    async def evict_cache(self, max_bytes: int, now: float, limit: int = 100) -> int:
        """Remove the least recently used cache entries until the documents of the rest fit into `max_bytes`. Kept.

        Return how many were removed, at most `limit`. Expired entries neither count nor are removed.
        """
        ...

    async def delete_expired_idempotency(self, before: float, limit: int) -> int:
        """Delete at most `limit` idempotency keys that expired before that time; return how many.

        Old outcomes of creates (`create_outcome`) go with them.
        """
        ...


class CreateStore(Predictions, Sharing, Protocol):
    """What creates ask of the store."""
