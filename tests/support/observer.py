"""An observer that records what services report."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.domain.bypass import BypassReason
from gateway.domain.ports.observers import (
    DeliveryObserver,
    IdentityObserver,
    LimitObserver,
    NewsObserver,
    OperationsObserver,
    PredictionObserver,
    UpstreamObserver,
)
from gateway.domain.records import Source, Status


class RecordingObserver:
    """Records every report, in order, as the method's name and its arguments."""

    def __init__(self) -> None:
        self.noted: list[tuple[str, tuple[Any, ...]]] = []

    def of(self, name: str) -> list[Any]:
        """Return the arguments of each report of a method: one value, or a tuple."""
        return [values[0] if len(values) == 1 else values for noted, values in self.noted if noted == name]

    def count(self, name: str) -> int:
        """Return how often a method was called."""
        return sum(noted == name for noted, _ in self.noted)

    def last(self, name: str) -> tuple[Any, ...]:
        """Return the arguments of a method's last call."""
        return [values for noted, values in self.noted if noted == name][-1]

    def _note(self, name: str, *values: Any) -> None:
        self.noted.append((name, values))

    def issuer_keys_read(self, issuer: str, outcome: str) -> None:
        self._note("issuer_keys_read", issuer, outcome)

    def token_refused(self, reason: str) -> None:
        self._note("token_refused", reason)

    def signed_in(self, issuer: str, outcome: str) -> None:
        self._note("signed_in", issuer, outcome)

    def prediction_created(self, team: str, target: str, source: Source, count: int = 1) -> None:
        for _ in range(count):
            self._note("prediction_created", team, target, source)

    def news_took(self, seconds: float) -> None:
        self._note("news_took", seconds)

    def news_overflowed(self, topic: str) -> None:
        self._note("news_overflowed", topic)

    def news_reconnected(self) -> None:
        self._note("news_reconnected")

    def lease_lost(self) -> None:
        self._note("lease_lost")

    def nodes_died(self, count: int) -> None:
        self._note("nodes_died", count)

    def runs_taken_over(self, count: int) -> None:
        self._note("runs_taken_over", count)

    def document_repaired(self) -> None:
        self._note("document_repaired")

    def logs_shortened(self) -> None:
        self._note("logs_shortened")

    def prediction_finished(self, team: str, status: Status, count: int = 1) -> None:
        for _ in range(count):
            self._note("prediction_finished", team, status)

    def cache_bypassed(self, reason: BypassReason) -> None:
        self._note("cache_bypassed", reason)

    def canceled(self, result: str) -> None:
        self._note("canceled", result)

    def listener_failed(self, listener: str) -> None:
        self._note("listener_failed", listener)

    def tracking_crashed(self, step: str) -> None:
        self._note("tracking_crashed", step)

    def connection_refused(self, pool: str) -> None:
        self._note("connection_refused", pool)

    def transfer_refused(self, direction: str, bound: str) -> None:
        self._note("transfer_refused", direction, bound)

    def transfer_too_slow(self, direction: str) -> None:
        self._note("transfer_too_slow", direction)

    def polled(self, served_by: str) -> None:
        self._note("polled", served_by)

    def orphan_resolved(self, result: str) -> None:
        self._note("orphan_resolved", result)

    def run_ended(self, target: str, queue_seconds: float | None, run_seconds: float | None) -> None:
        self._note("run_ended", target, queue_seconds, run_seconds)

    def cache_kept(self, entries: int, size: int) -> None:
        self._note("cache_kept", entries, size)

    def cache_evicted(self, count: int) -> None:
        self._note("cache_evicted", count)

    def spent(self, team: str, microusd: int) -> None:
        self._note("spent", team, microusd)

    def saved(self, team: str, reason: str, microusd: int) -> None:
        self._note("saved", team, reason, microusd)

    def quota_refused(self, team: str, reason: str) -> None:
        self._note("quota_refused", team, reason)

    def charge_doubted(self, reason: str) -> None:
        self._note("charge_doubted", reason)

    def budget(self, team: str, window: str, *, limit: int | None, spent: int, reserved: int) -> None:
        self._note("budget", team, window, limit, spent, reserved)

    def unsettled(self, count: int) -> None:
        self._note("unsettled", count)

    def reservation_stuck(self) -> None:
        self._note("reservation_stuck")

    def tag_values(self, most: int) -> None:
        self._note("tag_values", most)

    def ledger_drift(self, count: int) -> None:
        self._note("ledger_drift", count)

    def permit_waited(self, lane: str, seconds: float) -> None:
        self._note("permit_waited", lane, seconds)

    def permit_refused(self, lane: str, reason: str) -> None:
        self._note("permit_refused", lane, reason)

    def account_throttled(self, lane: str) -> None:
        self._note("account_throttled", lane)

    def request_refused(self, of: str) -> None:
        self._note("request_refused", of)

    def create_held(self, result: str, seconds: float) -> None:
        self._note("create_held", result, seconds)

    def upstream_answered(self, operation: str, outcome: str, seconds: float) -> None:
        self._note("upstream_answered", operation, outcome, seconds)

    def upstream_retried(self) -> None:
        self._note("upstream_retried")

    def events_sent(self, size: int) -> None:
        self._note("events_sent", size)

    def events_read(self, count: int) -> None:
        self._note("events_read", count)

    def first_event(self, seconds: float) -> None:
        self._note("first_event", seconds)

    def stream_resumed(self, result: str) -> None:
        self._note("stream_resumed", result)

    def stream_ended(self, how: str) -> None:
        self._note("stream_ended", how)

    def upstream_interrupted(self, how: str) -> None:
        self._note("upstream_interrupted", how)

    def delivery_attempted(self, event: str, result: str) -> None:
        self._note("delivery_attempted", event, result)

    def delivery_dropped(self, reason: str) -> None:
        self._note("delivery_dropped", reason)

    def deliveries_waiting(self, queued: int, dead: int, oldest_seconds: float) -> None:
        self._note("deliveries_waiting", queued, dead, oldest_seconds)

    def webhook_places_taken(self, by_team: Mapping[str, int]) -> None:
        self._note("webhook_places_taken", dict(by_team))

    def uploaded(self, result: str) -> None:
        self._note("uploaded", result)

    def output_stored(self, size: int) -> None:
        self._note("output_stored", size)

    def output_not_stored(self, reason: str) -> None:
        self._note("output_not_stored", reason)

    def outputs_gone(self, reason: str, count: int) -> None:
        self._note("outputs_gone", reason, count)

    def outputs_deleted(self, count: int) -> None:
        self._note("outputs_deleted", count)

    def outputs_held(self, objects: int, size: int) -> None:
        self._note("outputs_held", objects, size)

    def output_served(self, size: int) -> None:
        self._note("output_served", size)

    def store_answered(self, lane: str, result: str, seconds: float) -> None:
        self._note("store_answered", lane, result, seconds)

    def store_retried(self, cause: str) -> None:
        self._note("store_retried", cause)

    def store_failed(self, lane: str, kind: str) -> None:
        self._note("store_failed", lane, kind)

    def loop_crashed(self, loop: str) -> None:
        self._note("loop_crashed", loop)

    def config_reloaded(self, result: str, at: float) -> None:
        self._note("config_reloaded", result, at)

    # What is asked for often.

    @property
    def created(self) -> list[tuple[str, str, Source]]:
        """Predictions: team, target, how they were answered."""
        return self.of("prediction_created")

    @property
    def finished(self) -> list[tuple[str, Status]]:
        """Predictions that ended: team, status."""
        return self.of("prediction_finished")

    @property
    def polls(self) -> list[str]:
        """Reads of predictions: who answered."""
        return self.of("polled")

    @property
    def bypasses(self) -> list[BypassReason]:
        """Predictions that are not shared."""
        return self.of("cache_bypassed")

    @property
    def cancels(self) -> list[str]:
        """Cancels."""
        return self.of("canceled")

    @property
    def crashes(self) -> list[str]:
        """Defects while runs were followed: the step."""
        return self.of("tracking_crashed")

    @property
    def failed_listeners(self) -> list[str]:
        """Listeners of events that failed."""
        return self.of("listener_failed")

    @property
    def breaks(self) -> list[str]:
        """Interruptions of upstream's streams."""
        return self.of("upstream_interrupted")

    @property
    def outcomes(self) -> list[str]:
        """Outcomes of calls upstream."""
        return [outcome for _, outcome, _ in self.of("upstream_answered")]

    @property
    def held(self) -> list[tuple[str, float]]:
        """Creates that were held: result, seconds."""
        return self.of("create_held")

    @property
    def waits(self) -> list[tuple[str, float]]:
        """Waits for permits: lane, seconds."""
        return self.of("permit_waited")

    @property
    def refusals(self) -> list[tuple[str, str]]:
        """Calls without a permit: lane, reason."""
        return self.of("permit_refused")

    @property
    def throttles(self) -> list[str]:
        """Lanes of upstream's 429s."""
        return self.of("account_throttled")

    @property
    def tries(self) -> list[tuple[str, str]]:
        """Attempts to deliver webhooks: event, result."""
        return [(event, str(result)) for event, result in self.of("delivery_attempted")]

    @property
    def dropped(self) -> list[str]:
        """Webhooks that will not be sent: reasons."""
        return self.of("delivery_dropped")


if TYPE_CHECKING:
    _predictions: type[PredictionObserver] = RecordingObserver
    _limits: type[LimitObserver] = RecordingObserver
    _upstream: type[UpstreamObserver] = RecordingObserver
    _deliveries: type[DeliveryObserver] = RecordingObserver
    _operations: type[OperationsObserver] = RecordingObserver
    _news: type[NewsObserver] = RecordingObserver
    _identities: type[IdentityObserver] = RecordingObserver
