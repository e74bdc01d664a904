"""What the stream services need from others: stored event logs."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec


class LogPart(msgspec.Struct, frozen=True):
    """A part of a run's log on its way to the store."""

    run_id: str
    first: int
    """The number of its first event."""
    part: bytes
    kept_from: int
    """The number of the first event that is needed. Stored parts that only have events before it are deleted."""
    is_told: bool = False
    """Whether other nodes are told of it, because some read the log as it grows."""


class EventLogs(Protocol):
    """The event logs of runs, stored in parts while the run produces them (docs/architecture.md, Streams).

    A part is the dump of a `LogChunk`, opaque to the store. `clear_data` and the deletion of the run's record delete
    its parts.
    """

    async def append_events(self, parts: Sequence[LogPart]) -> set[str]:
        """Store parts of different runs' logs, and return the runs whose parts were stored. Kept, in one atomic step.

        A part replaces stored parts of its run that begin at its first event or later. So the call is idempotent, and
        a part with the entire log replaces all others. Nothing is stored of a run that is unknown, of another node, or
        whose data was removed. The nodes are told of the others, as part of the step.
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
