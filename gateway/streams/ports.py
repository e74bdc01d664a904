"""What the stream services need from others: stored event logs."""

from collections.abc import Mapping
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

    async def event_parts_since(self, cursors: Mapping[str, int]) -> dict[str, list[bytes]]:
        """Return the parts of several runs' logs that can have events from a cursor on, in order.

        The first part of a run can begin before its cursor. Runs without parts are left out. For logs of other nodes:
        where one process serves from the store, nothing is found.
        """
        ...

    async def event_parts(self, run_id: str) -> list[bytes]:
        """Return the parts of a run's log in the order of their events."""
        ...
