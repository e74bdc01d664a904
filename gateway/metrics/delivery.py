"""Metrics of streams, webhooks and files."""

from collections.abc import Mapping

from prometheus_client import Gauge

from gateway.metrics import catalogue
from gateway.metrics.registry import Registry


class StreamMetrics(Registry):
    """Observer of streams."""

    @property
    def sse_streams(self) -> Gauge:
        """Gauge of open event streams, by side."""
        gauge = self._metrics[catalogue.SSE_STREAMS]
        assert isinstance(gauge, Gauge)
        return gauge

    def events_sent(self, size: int) -> None:
        """Count bytes of events sent to callers."""
        self.counters[catalogue.SSE_BYTES][()].value += size

    def events_read(self, count: int) -> None:
        """Count events read from upstream."""
        self.counters[catalogue.SSE_EVENTS][()].value += count

    def first_event(self, seconds: float) -> None:
        """Record the time from a caller's stream request to its first event."""
        self.histograms[catalogue.FIRST_EVENT][()].observe(seconds)

    def stream_resumed(self, result: str) -> None:
        """Count a resumed stream: `resumed`, or `lost` if missed events were no longer kept."""
        self.counters[catalogue.RESUMES][(result,)].value += 1

    def stream_ended(self, how: str) -> None:
        """Count a closed stream of a caller, by reason."""
        self.counters[catalogue.STREAMS_ENDED][(how,)].value += 1

    def upstream_interrupted(self, how: str) -> None:
        """Count an interrupted upstream stream, by reaction."""
        self.counters[catalogue.STREAM_BREAKS][(how,)].value += 1


class DeliveryMetrics(Registry):
    """Observer of webhook deliveries."""

    def delivery_attempted(self, event: str, result: str) -> None:
        """Count an attempt to deliver a webhook."""
        self.counters[catalogue.DELIVERIES][event, result].value += 1

    def delivery_dropped(self, reason: str) -> None:
        """Count a webhook that will not be delivered, by reason."""
        self.counters[catalogue.WEBHOOKS_DROPPED][(reason,)].value += 1

    def deliveries_waiting(self, queued: int, dead: int, oldest_seconds: float) -> None:
        """Set the numbers of queued deliveries and dead letters, and the age of the oldest in seconds."""
        self.set(catalogue.WEBHOOKS_QUEUED, to=queued)
        self.set(catalogue.WEBHOOKS_DEAD, to=dead)
        self.set(catalogue.WEBHOOKS_OLDEST, to=oldest_seconds)

    def webhook_places_taken(self, by_team: Mapping[str, int]) -> None:
        """Set how many places in the webhook queue each team has taken."""
        for team, taken in by_team.items():
            self.set(catalogue.WEBHOOK_PLACES, team, to=taken)


class FileMetrics(Registry):
    """Observer of uploads and stored outputs."""

    def uploaded(self, result: str) -> None:
        """Count an upload: `sent`, `known` (deduplicated) or `refused`."""
        self.counters[catalogue.UPLOADS][(result,)].value += 1

    def transfer_refused(self, direction: str, bound: str) -> None:
        """Count an upload or download that was refused."""
        self.counters[catalogue.TRANSFER_REFUSALS][direction, bound].value += 1

    def transfer_too_slow(self, direction: str) -> None:
        """Count an upload or download that was ended because its caller was too slow."""
        self.counters[catalogue.SLOW_TRANSFERS][(direction,)].value += 1

    def output_stored(self, size: int) -> None:
        """Count a copied file of `size` bytes."""
        self.counters[catalogue.OUTPUTS_STORED][()].value += 1
        self.counters[catalogue.OUTPUTS_STORED_BYTES][()].value += size

    def output_not_stored(self, reason: str) -> None:
        """Count a failed attempt to copy a file, by reason."""
        self.counters[catalogue.OUTPUTS_NOT_STORED][(reason,)].value += 1

    def outputs_gone(self, reason: str, count: int) -> None:
        """Count copies removed before their predictions, by reason."""
        self.counters[catalogue.OUTPUTS_GONE][(reason,)].value += count

    def outputs_deleted(self, count: int) -> None:
        """Count objects deleted from the output store."""
        self.counters[catalogue.OUTPUTS_DELETED][()].value += count

    def outputs_held(self, objects: int, size: int) -> None:
        """Set number and size in bytes of the stored objects."""
        self.set(catalogue.OUTPUTS_HELD, to=objects)
        self.set(catalogue.OUTPUTS_HELD_BYTES, to=size)

    def output_served(self, size: int) -> None:
        """Count bytes of copies sent to callers."""
        self.counters[catalogue.OUTPUTS_SERVED_BYTES][()].value += size
