"""What the stream services need from others: stored event logs, and an observer for metrics."""

from typing import Protocol


class EventLogs(Protocol):
    """The event logs of runs, stored in parts while the run produces them (docs/architecture.md, Streams).

    A part is the dump of a `LogChunk`, opaque to the store. `clear_data` and the deletion of the run's record delete
    its parts.
    """

    async def append_events(self, run_id: str, first: int, part: bytes, *, kept_from: int) -> bool:
        """Store a part of a run's log whose first event has number `first`. Kept, in one atomic step.

        The part replaces stored parts that begin at `first` or later. Parts that only have events before number
        `kept_from` are deleted. So the call is idempotent, and a part with the entire log replaces all others.

        Return false, and store nothing, if the run is unknown or its data was removed.
        """
        ...

    async def event_parts(self, run_id: str) -> list[bytes]:
        """Return the parts of a run's log in the order of their events."""
        ...


class StreamObserver(Protocol):
    """Whoever counts what happens to streams."""

    def events_sent(self, size: int) -> None:
        """Note bytes of events that were written to callers."""
        ...

    def events_read(self, count: int) -> None:
        """Note events that upstream has sent."""
        ...

    def first_event(self, seconds: float) -> None:
        """Note how long a caller waited for the first event of its stream."""
        ...

    def stream_resumed(self, result: str) -> None:
        """Note a stream that a caller took up again: `resumed` where it had been, or something was `lost`."""
        ...

    def stream_ended(self, how: str) -> None:
        """Note the end of a caller's stream.

        `done`: all was said. `canceled`: the prediction ended for its caller before its run. `lost`: what the caller
        asked for is no longer kept. `left`: the caller went. `stalled`: the caller took nothing for too long and was
        cut off. `closing`: the gateway stops.
        """
        ...

    def upstream_interrupted(self, how: str) -> None:
        """Note that upstream's stream broke off: to be `resumed`, or `finished` from the run's result."""
        ...
