"""Observers: services report what happens, and `gateway.metrics` counts it. One Protocol for each side of the gateway.

Amounts are micro-dollars, sizes bytes.
"""

from collections.abc import Mapping
from typing import Final, Protocol

from gateway.domain.bypass import BypassReason
from gateway.domain.records import Source, Status

STORE_RETRIES: Final = ("key", "deadlock", "lock", "connection", "commit")
STORE_FAILURES: Final = ("full", "io", "access", "damaged", "lost")
"""Why a store fails for longer than a moment: disk full, disk errors, no permission, damaged data, file gone."""

POOLS: Final = ("api", "uploads", "downloads")
"""The pools of connections to upstream."""

KEY_READS: Final = ("read", "refused", "unreachable", "timeout", "status", "too_large", "invalid")
"""Outcomes of reading the keys of an issuer. refused: its address is not allowed."""


class LoopObserver(Protocol):
    """Counts crashes of background loops."""

    def loop_crashed(self, loop: str) -> None:
        """Count a crash of a loop, by a `gateway.runtime.loops.BackgroundLoop`. The loop starts again."""
        ...


class IdentityObserver(Protocol):
    """Counts what concerns external identities."""

    def issuer_keys_read(self, issuer: str, outcome: str) -> None:
        """Count an attempt to read the keys of an issuer, by its name in the config; `outcome` is of `KEY_READS`."""
        ...

    def token_refused(self, reason: str) -> None:
        """Count a refused token, by a `gateway.access.rules.json_web_tokens.Reason`."""
        ...

    def signed_in(self, issuer: str, outcome: str) -> None:
        """Count a sign-in to the console that ended, by a `gateway.access.rules.sign_in.Outcome`."""
        ...


class PredictionObserver(Protocol):
    """Counts predictions, the runs they share, and the results kept for later requests."""

    def prediction_created(self, team: str, target: str, source: Source, count: int = 1) -> None:
        """Count predictions that were recorded, and how they were answered."""
        ...

    def prediction_finished(self, team: str, status: Status, count: int = 1) -> None:
        """Count predictions of a team that ended for their callers."""
        ...

    def cache_bypassed(self, reason: BypassReason) -> None:
        """Count a prediction that is not shared."""
        ...

    def canceled(self, result: str) -> None:
        """Count a cancel: one caller has `left` others, upstream was `asked`, or the prediction was `over` before."""
        ...

    def polled(self, served_by: str) -> None:
        """Count a read of a prediction: answered here (`gateway`), or passed on (`upstream`)."""
        ...

    def tracking_crashed(self, step: str) -> None:
        """Count a defect in a step for a run: `poll`, `cancel`, `report` or `observe`. The step is tried again."""
        ...

    def document_repaired(self) -> None:
        """Count an answer of upstream whose text was not valid, and was replaced in part."""
        ...

    def logs_shortened(self) -> None:
        """Count a large answer of upstream of whose logs only the end was kept."""
        ...

    def listener_failed(self, listener: str) -> None:
        """Count a failed call of a listener, by a `gateway.predictions.events.Listener`."""
        ...

    def orphan_resolved(self, result: str) -> None:
        """Count a create whose outcome was uncertain: `adopted`, or `released`."""
        ...

    def run_ended(self, target: str, queue_seconds: float | None, run_seconds: float | None) -> None:
        """Observe how long a run waited for its start and how long it took, as far as is known."""
        ...

    def cache_kept(self, entries: int, size: int) -> None:
        """Set the number of results that can answer later requests, and their size."""
        ...

    def cache_evicted(self, count: int) -> None:
        """Count results that were removed for want of room."""
        ...


class LimitObserver(Protocol):
    """Counts money, budgets, rates and the account's queue. `lane` is `creates` or `requests`."""

    def spent(self, team: str, microusd: int) -> None:
        """Count the cost of a run."""
        ...

    def saved(self, team: str, reason: str, microusd: int) -> None:
        """Count what was saved: by a `hit`, or because a run was `joined`."""
        ...

    def quota_refused(self, team: str, reason: str) -> None:
        """Count a create that a limit refused. `reason` is a `gateway.domain.quota.LimitKind`."""
        ...

    def charge_doubted(self, reason: str) -> None:
        """Count a charge that may differ from upstream's; `reason` is a `gateway.money.rules.usage.Doubt`."""
        ...

    def budget(self, team: str, window: str, *, limit: int | None, spent: int, reserved: int) -> None:
        """Set a team's budget of a `day` or `month`; `limit` is `None` where there is none."""
        ...

    def unsettled(self, count: int) -> None:
        """Set the number of reservations older than an hour."""
        ...

    def reservation_stuck(self) -> None:
        """Count a reservation that was freed because its run had ended or was gone."""
        ...

    def ledger_drift(self, count: int) -> None:
        """Set the number of sums that differed from the ledger in the last comparison."""
        ...

    def tag_values(self, most: int) -> None:
        """Set the largest number of values of a cost tag that a team has used today."""
        ...

    def permit_waited(self, lane: str, seconds: float) -> None:
        """Observe the wait for a permit to call upstream."""
        ...

    def permit_refused(self, lane: str, reason: str) -> None:
        """Count a call that got no permit: `timeout`, `queue_full`, or `too_long` if none can come in time."""
        ...

    def account_throttled(self, lane: str) -> None:
        """Count a 429 of upstream."""
        ...

    def request_refused(self, of: str) -> None:
        """Count a request over a rate; `of` is `team`, `key`, `user` or `address`."""
        ...

    def create_held(self, result: str, seconds: float) -> None:
        """Count a create that was held: `admitted` or `refused`; or that was not: `full`, or the wait `too_long`."""
        ...


class UpstreamObserver(Protocol):
    """Counts calls upstream and event streams."""

    def upstream_answered(self, operation: str, outcome: str, seconds: float) -> None:
        """Count a call and its outcome: a status, or the name of a failure."""
        ...

    def connection_refused(self, pool: str) -> None:
        """Count a call that found no free connection in time; `pool` is `api`, `uploads` or `downloads`."""
        ...

    def upstream_retried(self) -> None:
        """Count a read that is repeated."""
        ...

    def events_sent(self, size: int) -> None:
        """Count bytes of events that were written to callers."""
        ...

    def events_read(self, count: int) -> None:
        """Count events that upstream has sent."""
        ...

    def first_event(self, seconds: float) -> None:
        """Observe how long a caller waited for the first event of its stream."""
        ...

    def stream_resumed(self, result: str) -> None:
        """Count a stream that a caller resumed: `resumed` where it had been, or with events `lost`."""
        ...

    def stream_ended(self, how: str) -> None:
        """Count the end of a caller's stream.

        `done`: complete. `canceled`: the prediction ended for its caller before its run. `lost`: what the caller asked
        for is no longer kept. `left`: the caller disconnected. `stalled`: the caller took nothing for too long.
        `closing`: the gateway stops.
        """
        ...

    def upstream_interrupted(self, how: str) -> None:
        """Count an interruption of upstream's stream: to be `resumed`, or `finished` from the run's result."""
        ...


class DeliveryObserver(LoopObserver, Protocol):
    """Counts webhooks, uploads and stored outputs."""

    def delivery_attempted(self, event: str, result: str) -> None:
        """Count an attempt. `event`: `start`, `output`, `logs`, `completed`, `announcement`; `result`: a `Result`."""
        ...

    def delivery_dropped(self, reason: str) -> None:
        """Count a webhook that will not be sent.

        `full` (progress over a team's bound), `gave_up` (it is a dead letter now), `dead_letters_full` (a dead letter
        was deleted), `gone` (its records are).
        """
        ...

    def deliveries_waiting(self, queued: int, dead: int, oldest_seconds: float) -> None:
        """Set what the store keeps: webhooks that wait, the age of the oldest, and dead letters."""
        ...

    def webhook_places_taken(self, by_team: Mapping[str, int]) -> None:
        """Set how many places in the webhook queue each team has taken."""
        ...

    def uploaded(self, result: str) -> None:
        """Count an upload: `sent` upstream, `known` there already, or `refused` by it."""
        ...

    def transfer_refused(self, direction: str, bound: str) -> None:
        """Count an upload or download that was refused.

        `direction` is `uploads` or `downloads`; `bound` is `total`, `team` or `public_key`.
        """
        ...

    def transfer_too_slow(self, direction: str) -> None:
        """Count an upload or download that was ended because its caller was too slow."""
        ...

    def output_stored(self, size: int) -> None:
        """Count a file that was copied."""
        ...

    def output_not_stored(self, reason: str) -> None:
        """Count an attempt to copy a file that failed; `reason` is a `gateway.outputs.ports.CopyFailure`."""
        ...

    def outputs_gone(self, reason: str, count: int) -> None:
        """Count objects that went (for `expired`: copies); `reason` is a `gateway.outputs.ports.RemovalReason`."""
        ...

    def outputs_deleted(self, count: int) -> None:
        """Count objects whose bytes were deleted: those that went, and those that no prediction needs any more."""
        ...

    def outputs_held(self, objects: int, size: int) -> None:
        """Set the number of objects in the output store, and their size."""
        ...

    def output_served(self, size: int) -> None:
        """Count bytes of copies that were sent to callers."""
        ...


class NodesObserver(Protocol):
    """Counts what becomes of the nodes that serve from one store."""

    def lease_lost(self) -> None:
        """Count that this node has lost its lease, and with it its runs."""
        ...

    def nodes_died(self, count: int) -> None:
        """Count nodes that did not renew their leases, and that this node has ended."""
        ...

    def runs_taken_over(self, count: int) -> None:
        """Count runs that this node has taken over from nodes that have ended."""
        ...


class OperationsObserver(LoopObserver, Protocol):
    """Counts what operators watch: the store, and reloads of the config."""

    def store_answered(self, lane: str, result: str, seconds: float) -> None:
        """Observe a `read` or `write` of the store: `done`, `failed`, or with its answer too `late`."""
        ...

    def store_retried(self, cause: str) -> None:
        """Count a step that ran again, or a commit whose outcome had to be found out: one of `STORE_RETRIES`."""
        ...

    def config_reloaded(self, result: str, at: float) -> None:
        """Count a reload: `taken`, or `refused`. `at` is its epoch time."""
        ...

    def store_failed(self, lane: str, kind: str) -> None:
        """Note a failed step whose cause lasts: one of `STORE_FAILURES`."""
        ...


class NewsObserver(Protocol):
    """Counts what nodes tell each other."""

    def news_took(self, seconds: float) -> None:
        """Observe the time from sending a notification until the server has passed it back."""
        ...

    def news_overflowed(self, topic: str) -> None:
        """Count that too many names of a topic waited to be sent, so that other nodes read all."""
        ...

    def news_reconnected(self) -> None:
        """Count that the connection for news was lost and is there again."""
        ...
