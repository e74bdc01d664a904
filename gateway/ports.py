"""What services ask of the outside world.

A service takes the narrowest role. Every method is one atomic step, so that both an embedded database and a shared
server can keep its promise; the docstrings say what is atomic and what survives. Two degrees of lasting are told apart
(design 2.9): *kept* outlives the process, *durable* outlives the power too. All methods raise
`gateway.errors.StoreUnavailable` when the store cannot answer in time; nothing has changed then, as far as the store
can tell.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from gateway.core.answers import Answer
from gateway.core.cursors import Cursor
from gateway.core.records import (
    Begin,
    Begun,
    CacheStats,
    Cancellation,
    File,
    Key,
    Kind,
    Page,
    Prediction,
    Run,
    Sight,
    Source,
    Status,
)


class Clock(Protocol):
    """Time, read and slept."""

    def now(self) -> float:
        """Return the time as seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return a time that never goes back, in seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""
        ...


class UpstreamObserver(Protocol):
    """Whoever counts the calls upstream."""

    def upstream_answered(self, operation: str, outcome: str, seconds: float) -> None:
        """Note one call and how it ended: a status, or the name of a failure; `seconds` from asking to the end."""
        ...


class PredictionObserver(Protocol):
    """Whoever counts predictions."""

    def prediction_created(self, team: str, target: str, source: Source) -> None:
        """Note a prediction that was recorded, and how it was answered."""
        ...

    def prediction_finished(self, team: str, status: Status) -> None:
        """Note a prediction that has ended for its caller."""
        ...

    def polled(self, served_by: str) -> None:
        """Note a look at a prediction: answered here (`gateway`), or sent on (`upstream`)."""
        ...


class AdoptionObserver(Protocol):
    """Whoever counts creates that were uncertain."""

    def orphan_settled(self, result: str) -> None:
        """Note what became of one: `adopted`, or `released`."""
        ...


class Upstream(Protocol):
    """Replicate's API, with the account's token. See `gateway.outbound.replicate` for what is raised when."""

    async def read(
        self,
        operation: str,
        path: str,
        *,
        method: str = "GET",
        query: str = "",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask for something; repeated where that is safe."""
        ...

    async def send(
        self,
        operation: str,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Change something; sent once."""
        ...

    async def upload(self, operation: str, path: str, body: AsyncIterator[bytes], content_type: str) -> Answer:
        """Send a body as it comes in."""
        ...


class Predictions(Protocol):
    """Runs, and the predictions that share them."""

    async def record_created(self, run: Run, prediction: Prediction) -> None:
        """Turn the intent of the same id into `run` (state `live` or `ended`); `prediction` replaces its leader.

        Durable. One step: whoever sees a prediction of the run sees the run. The leader's id (upstream's, which is not
        the placeholder's), time, ticket and deadline are those of `prediction`, and the run's `leader_id` is set to
        it; an idempotency key goes with it. All ids of the run resolve from then on. Repeating it with the same values
        changes nothing. Raises `gateway.errors.Conflict` if the id, upstream's or the prediction's, belongs to another
        run.
        """
        ...

    async def discard_intent(self, run_id: str) -> None:
        """Forget an intent, its predictions and their idempotency keys: upstream refused it, or it was never sent.

        Does nothing unless it is still an intent.
        """
        ...

    async def advance(
        self,
        run_id: str,
        *,
        status: Status,
        document: bytes,
        stream_url: str | None,
        at: float,
        cache_until: float | None = None,
    ) -> Run | None:
        """Take news of a run: keep `document`, move the status forward, end the run at `at` if it is terminal. Kept.

        One step compares and sets: nothing changes when the run has ended, or when `status` ranks below what is
        known. `stream_url` of `None` leaves the known one. `cache_until` is kept when the change ends the run with
        `succeeded` and it has a fingerprint. A terminal change is durable. Return the run as it is
        after the change, or `None` if nothing changed, which may also mean that all of it was known.
        """
        ...

    async def cancel(self, prediction_id: str, at: float, *, by_deadline: bool = False) -> Cancellation | None:
        """End a prediction for its caller, and tell whether it was the last of its run that anyone waited for. Kept.

        By its caller it ends as `canceled`; `by_deadline` as `aborted` while the run's status is `starting`.

        One step decides all of it. A prediction that was cancelled before, or whose run has ended, stays as it is
        (`changed` false). `is_last` is true for exactly one call in a run's life, which also sets the run's
        `cancel_asked_at`. `None` for an unknown id, and for one that nobody has seen yet.
        """
        ...

    async def prediction(self, prediction_id: str) -> Sight | None:
        """Find a prediction by its id, of whatever team: the caller's right to see it is the caller's to check."""
        ...

    async def prediction_by_ticket(self, ticket_sha256: str) -> Sight | None:
        """Find the prediction that a stream ticket (given as hex SHA-256) belongs to."""
        ...

    async def predictions(
        self,
        *,
        team: str | None,
        kind: Kind,
        limit: int,
        position: Cursor | None = None,
        created_after: float | None = None,
        created_before: float | None = None,
    ) -> Page:
        """List predictions of a kind, newest first by `created_at`, then id. `team` of `None` means all teams.

        `created_after` is inclusive, `created_before` exclusive. Served from an index: its cost follows `limit`.
        """
        ...

    async def owns_upstream_id(self, upstream_id: str) -> bool:
        """Say whether some run has this upstream id."""
        ...

    async def open_runs(self, *, after: str = "", limit: int = 500) -> list[Run]:
        """List runs that are `intended` or `live`, by run id, beginning after `after`: a restart's work."""
        ...

    async def runs_to_clear(self, ended_before: float, now: float, limit: int) -> list[Run]:
        """List ended runs whose data is still kept (`data_removed` false), oldest end first.

        Runs that may still answer requests (`now < cache_until`) are left out: their data goes
        when their time as a cache entry is over.
        """
        ...

    async def clear_data(self, run_id: str, document: bytes) -> None:
        """Replace an ended run's document by one without data, drop its request, and mark it `data_removed`."""
        ...

    async def delete_records(self, created_before: float, limit: int) -> int:
        """Delete at most `limit` predictions older than that whose runs have ended, and runs left without any.

        Return how many predictions were deleted, so that the caller can go on in small steps.
        """
        ...


class Sharing(Protocol):
    """Runs that several predictions share: found, joined, kept for later (design 3, 4).

    A run is *open* while it is `intended` or `live` and upstream has not been asked to cancel it. At most one open run
    has a given fingerprint. Until a run is `live` its predictions have been shown to nobody: `prediction`,
    `predictions` and `prediction_by_ticket` pass over them.
    """

    async def begin(self, begin: Begin) -> Begun:
        """Let a prediction come about in the first way that is possible and allowed. One step.

        0. An idempotency key of the team that is known and has not expired: `mismatched` if the body differs,
           `pending` while its run is `intended`, else `replayed` with the first request's prediction.
        1. `may_hit`: the newest `succeeded` run of the fingerprint with `now < cache_until`, data not removed and
           `ended_at >= ended_since`: the prediction is added to it as a `hit`. The use is noted, for eviction.
        2. `may_join`: an open run whose fingerprint is the intent's, or whose provisional identity is the intent's
           `provisional`: the prediction is added to it as `joined`. Where both have fingerprints, those decide.
        3. `may_lead`: the intent is recorded with the prediction as its leader (`leader_id` is its id, its `source` as
           given). An open run of that fingerprint that may not be joined loses nothing; the intent is then recorded
           without a fingerprint.
        4. Else `nothing`, and nothing is recorded.

        Raises `gateway.errors.Conflict` for the id of a run or prediction that exists. What is recorded is kept;
        durable when `may_lead`. The idempotency key is remembered with the prediction,
        whichever way it came about.
        """
        ...

    async def mark_uncertain(self, run_id: str, at: float) -> None:
        """Note that upstream may or may not have taken an intent's create. Kept."""
        ...

    async def settle_identity(self, run_id: str, fingerprint: str | None, cache_until: float | None) -> bool:
        """Give a run its final identity in place of the provisional one. Kept. One step.

        If another open run has the fingerprint already, the run stays without one. `cache_until` counts only if the
        run has succeeded. Return whether the run now has `fingerprint`.
        """
        ...

    async def part(self, prediction_id: str) -> None:
        """Take a joined prediction that nobody has seen back out of its run, its idempotency key too."""
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


class Keys(Protocol):
    """Keys issued at run time. Those of the config are not in here."""

    async def add_key(self, key: Key) -> None:
        """Add a key. Durable.

        Raises `gateway.errors.Conflict` if the id, or an unrevoked key of that team and name, exists already; an
        expired one still holds its name.
        """
        ...

    async def key(self, key_id: str) -> Key | None:
        """Find a key, whether or not it is still valid."""
        ...

    async def keys(self, team: str | None = None) -> list[Key]:
        """List keys by team and creation."""
        ...

    async def revoke_key(self, key_id: str, at: float) -> Key | None:
        """Revoke a key from `at` on. Durable. An earlier revocation stays. `None` for an unknown id."""
        ...

    async def rotate_key(self, key_id: str, successor: Key, expires_at: float) -> Key | None:
        """Add `successor` and let the old key end at `expires_at` (or earlier, if it would anyway), in one step.

        Durable. Return the old key as it is then; `None`, with nothing added, if it is unknown or revoked. Raises
        `gateway.errors.Conflict` if the successor's id, or a name of its own, is taken.
        """
        ...


class Files(Protocol):
    """Files that teams uploaded."""

    async def add_file(self, file: File) -> None:
        """Remember a file. Kept. A known id keeps its first record."""
        ...

    async def file(self, file_id: str) -> File | None:
        """Find a file, of whatever team."""
        ...

    async def files_among(self, file_ids: Sequence[str]) -> list[File]:
        """Find those of the ids that are known, of whatever team, in one look."""
        ...

    async def files(self, *, team: str | None, limit: int, now: float, position: Cursor | None = None) -> Page:
        """List files that have not expired, newest first."""
        ...

    async def delete_file(self, file_id: str) -> None:
        """Forget a file."""
        ...

    async def delete_expired_files(self, before: float, limit: int) -> int:
        """Forget at most `limit` files that expired before that; return how many."""
        ...


class Versions(Protocol):
    """The lasting map from a version id to its model."""

    async def learn_version(self, version: str, model: str) -> None:
        """Remember that `version` (64 hex) is one of `model` (`owner/name`). Kept. The first word stands."""
        ...

    async def model_of(self, version: str) -> str | None:
        """Name the model of a version, if it is known."""
        ...


class Secrets(Protocol):
    """Secrets that the gateway makes for itself: for tickets, browser tokens, webhook signatures."""

    async def secret(self, name: str, proposal: bytes) -> bytes:
        """Return the secret of that name; the first call's `proposal` becomes it, whoever calls. Durable."""
        ...


class Leases(Protocol):
    """Ownership of some work by one process, with an end. Times are the caller's; owners must share a clock."""

    async def acquire_lease(self, name: str, owner: str, now: float, until: float) -> bool:
        """Take or renew a lease: true if it was free, had ended by `now`, or is `owner`'s already. One step. Kept."""
        ...

    async def release_lease(self, name: str, owner: str) -> None:
        """Give a lease back, if it is `owner`'s."""
        ...


class Store(Predictions, Sharing, Keys, Files, Versions, Secrets, Leases, Protocol):
    """Everything that lasts."""

    async def open(self) -> None:
        """Connect, and bring the schema up to date. Raises `gateway.errors.StoreUnavailable` with what is wrong."""
        ...

    async def claim(self) -> None:
        """Begin to serve from this store. It ends with the process, however that ends.

        Raises `gateway.errors.StoreUnavailable` if the store takes one serving process only, and has one.
        """
        ...

    async def close(self) -> None:
        """Finish what was asked, then let go."""
        ...

    async def ping(self) -> None:
        """Prove that the store answers, by a write that is read back."""
        ...
