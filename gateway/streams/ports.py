"""Event logs that last, and those who count what happens to streams."""

from typing import Protocol


class EventLogs(Protocol):
    """The events of runs' streams, kept in parts while they come (docs/architecture.md, Streams).

    A part is the dump of a stretch of one run's log (`gateway.streams.rules.event_log`): the store does not look into
    it. What is kept of a run lives as long as its data: `clear_data` takes it away, and so does the end of its record.
    """

    async def append_events(self, run_id: str, first: int, part: bytes, *, kept_from: int) -> bool:
        """Keep a part of a run's log that begins with event number `first`. Kept. One step.

        Parts that begin there or later are replaced by it; parts that hold nothing but events before number
        `kept_from` go. So repeating it changes nothing, and a part that holds the whole log takes the place of all.
        Return false, with nothing kept, for a run that is unknown or whose data was removed.
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
