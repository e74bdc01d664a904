"""Event logs in the store."""

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
