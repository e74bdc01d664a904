"""What is counted of what goes to callers beside answers: streams, webhooks, files."""

from prometheus_client import Gauge

from gateway.metrics import catalogue
from gateway.metrics.registry import Registry


class StreamMetrics(Registry):
    """The observer of streams."""

    @property
    def sse_streams(self) -> Gauge:
        """The event streams that are open, by side."""
        gauge = self._metrics[catalogue.SSE_STREAMS]
        assert isinstance(gauge, Gauge)
        return gauge

    def events_sent(self, size: int) -> None:
        """Note bytes of events that were written to callers."""
        self.inc(catalogue.SSE_BYTES, by=size)

    def events_read(self, count: int) -> None:
        """Note events that upstream has sent."""
        self.inc(catalogue.SSE_EVENTS, by=count)

    def first_event(self, seconds: float) -> None:
        """Note how long a caller waited for the first event of its stream."""
        self.observe(catalogue.FIRST_EVENT, seconds=seconds)

    def stream_resumed(self, result: str) -> None:
        """Note a stream that a caller took up again: `resumed` where it had been, or something was `lost`."""
        self.inc(catalogue.RESUMES, result)

    def stream_ended(self, how: str) -> None:
        """Note the end of a caller's stream."""
        self.inc(catalogue.STREAMS_ENDED, how)

    def upstream_broke(self, how: str) -> None:
        """Note that upstream's stream broke off."""
        self.inc(catalogue.STREAM_BREAKS, how)


class DeliveryMetrics(Registry):
    """The observer of webhooks."""

    def delivery_attempted(self, event: str, result: str) -> None:
        """Note one try to deliver a webhook."""
        self.inc(catalogue.DELIVERIES, event, result)

    def delivery_dropped(self, reason: str) -> None:
        """Note a webhook that will not be sent."""
        self.inc(catalogue.WEBHOOKS_DROPPED, reason)

    def deliveries_waiting(self, queued: int, dead: int, oldest_seconds: float) -> None:
        """Note what is kept in the store."""
        self.set(catalogue.WEBHOOKS_QUEUED, to=queued)
        self.set(catalogue.WEBHOOKS_DEAD, to=dead)
        self.set(catalogue.WEBHOOKS_OLDEST, to=oldest_seconds)


class FileMetrics(Registry):
    """The observer of uploads and of stored outputs."""

    def uploaded(self, result: str) -> None:
        """Note an upload."""
        self.inc(catalogue.UPLOADS, result)

    def output_stored(self, size: int) -> None:
        """Note a file that was copied."""
        self.inc(catalogue.OUTPUTS_STORED)
        self.inc(catalogue.OUTPUTS_STORED_BYTES, by=size)

    def output_not_stored(self, reason: str) -> None:
        """Note an attempt that came to nothing."""
        self.inc(catalogue.OUTPUTS_NOT_STORED, reason)

    def outputs_gone(self, reason: str, count: int) -> None:
        """Note copies that went."""
        self.inc(catalogue.OUTPUTS_GONE, reason, by=count)

    def outputs_deleted(self, count: int) -> None:
        """Note objects that were deleted."""
        self.inc(catalogue.OUTPUTS_DELETED, by=count)

    def outputs_held(self, objects: int, size: int) -> None:
        """Note what the output store has."""
        self.set(catalogue.OUTPUTS_HELD, to=objects)
        self.set(catalogue.OUTPUTS_HELD_BYTES, to=size)

    def output_served(self, size: int) -> None:
        """Note bytes that were sent."""
        self.inc(catalogue.OUTPUTS_SERVED_BYTES, by=size)
