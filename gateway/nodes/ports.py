"""What the nodes share in the store: their leases, and which runs each of them follows."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from gateway.domain.records import Run

LEADER: Final = "leader"
"""The lease of the node that searches for the runs of uncertain creates, deletes what has expired, and audits."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A process that serves from the store. Times are by the store's clock."""

    number: int
    """Given at each start, and again after each loss of the lease. Never used twice."""
    name: str
    """For people: where the process runs."""
    started_at: float
    renewed_at: float
    expires_at: float
    ended_at: float | None = None
    """When it left, or another node found its lease expired."""
    report: str = "{}"
    """What it said of itself when it renewed its lease, as JSON."""


class Living(NamedTuple):
    """The nodes that have not ended, by number, at a time of the store's clock."""

    at: float
    places: Mapping[int, str]
    """Where their processes run; empty if that is not known."""


class Nodes(Protocol):
    """The leases of the nodes. All times are by the store's clock, and every operation is one atomic step."""

    async def join(self, name: str, seconds: float, place: str = "") -> int:
        """Give this process a new number, with a lease of `seconds`. From then on its steps have this number.

        Numbers only increase. A number that the process had before is ended. `place` is where the process runs.
        """
        ...

    async def renew(self, number: int, seconds: float, report: str) -> bool:
        """Renew a lease. Return false, and change nothing, if the node has ended."""
        ...

    async def leave(self, number: int) -> None:
        """End a node now, so that the others take over its runs at once."""
        ...

    async def end_expired(self, by: int, at: float) -> list[int]:
        """End the other nodes whose leases had expired at a time, and return their numbers. Each is ended once.

        A lease that was renewed later than it is long after that time was renewed before the clock went back. Call this
        when living nodes have had the time to renew theirs since.
        """
        ...

    async def end(self, by: int, numbers: Sequence[int]) -> list[int]:
        """End other nodes whose processes have ended, and return the numbers of those that had not ended yet."""
        ...

    async def take_runs(self, by: int, limit: int) -> list[Run]:
        """Make `by` the owner of up to `limit` open runs that no living node owns, and return them.

        Nodes that take runs at the same time share them; none waits for another. A node that has ended gets none.
        Intents go to the node that has the lease `LEADER`: it searches for the runs of all uncertain creates.
        """
        ...

    async def take_ended_runs(self, by: int, since: float, limit: int) -> int:
        """Make `by` the owner of up to `limit` runs that ended after `since` and that no living node owns.

        Their outputs may have to be copied. Return how many.
        """
        ...

    async def owned_runs(self, number: int) -> list[str]:
        """List the ids of the open runs that a node owns."""
        ...

    async def living(self) -> Living:
        """List all nodes that have not ended."""
        ...

    async def nodes(self, limit: int, *, before: int | None = None) -> list[Node]:
        """List nodes: those alive, and those that ended lately. The newest come first.

        With `before`, only those with a lower number.
        """
        ...

    async def lead(self, name: str, number: int, seconds: float) -> bool:
        """Take or renew the lease of a task that one node does for all. Return whether this node has it.

        It is taken if it is free, expired, or held by a node that has ended.
        """
        ...

    async def clock(self) -> float:
        """Return the time of the store's clock."""
        ...

    async def note_reload(self) -> int:
        """Count a reload of the config, and return how many there were."""
        ...

    async def reloads(self) -> int:
        """Return how many reloads of the config were counted."""
        ...

    async def forget_sessions(self, limit: int) -> int:
        """Delete up to `limit` notes of what connections that have long ended have written; return how many."""
        ...
