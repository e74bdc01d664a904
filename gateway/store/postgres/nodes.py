"""The leases of nodes, and which node owns which run (the `Nodes` port). PostgreSQL only: a file has one process.

Leases are renewed on a connection of their own, so that no other step delays them. Times are by the server's clock.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from gateway.domain.records import Run
from gateway.nodes.ports import LEADER, Living, Node
from gateway.store.postgres.connection import Address
from gateway.store.postgres.database import NodeIdentity, PostgresDatabase
from gateway.store.postgres.lanes import WritingLane
from gateway.store.postgres.locks import key_of
from gateway.store.sql.database import Database, SumBounds
from gateway.store.sql.locks import Lock
from gateway.store.sql.lookup import EVERYTHING
from gateway.store.sql.rows import RUNS

if TYPE_CHECKING:
    import asyncio

    from gateway.nodes.ports import Nodes

T = TypeVar("T")

_SECONDS: Final = 2.0
"""How long a renewal may take. One that takes longer is not waited for: the next one is due."""
_KEPT_SECONDS: Final = 86_400.0
_KEPT_SESSIONS_SECONDS: Final = 30 * 86_400.0
_JOINING: Final = key_of(Lock.NODES.name, "")
_LAST: Final = 2**63 - 1
_FIELDS: Final = Node.__struct_fields__


class Submit(Protocol):
    """Runs a step in one of the store's lanes."""

    def __call__(self, step: Callable[[Database], T], /) -> "asyncio.Future[T]":
        """Return the future of the step's result."""
        ...


class PostgresNodes:
    """The nodes of one database."""

    def __init__(self, write: Submit, read: Submit, address: Address, identity: NodeIdentity) -> None:
        self._write = write
        self._read = read
        self._identity = identity
        self._leases = WritingLane(
            "store-leases",
            address._replace(timeout_seconds=min(_SECONDS, address.timeout_seconds)),
            max_pending=100,
            threads=1,
            is_relaxed=False,
            database=PostgresDatabase,
            identity=identity,
            bounds=SumBounds(),
        )

    async def start(self) -> None:
        """Open the connection for leases."""
        await self._leases.start()

    async def stop(self) -> None:
        """Close it."""
        await self._leases.stop()

    async def join(self, name: str, seconds: float, place: str = "") -> int:
        """Give this process a new number."""
        old = self._identity.number

        def step(db: Database) -> int:
            db.execute("lock_joining", {"key": _JOINING})
            db.execute("forget_nodes", {"seconds": _KEPT_SECONDS})
            db.execute("leave_nodes", {"number": old})
            return int(db.execute("join_nodes", {"name": name, "seconds": seconds, "place": place}).fetchone()[0])

        self._identity.number = await self._leases.submit(step)
        return self._identity.number

    async def renew(self, number: int, seconds: float, report: str) -> bool:
        """Renew a lease."""
        given = {"number": number, "seconds": seconds, "report": report}
        return await self._leases.submit(lambda db: db.execute("renew_node", given).rowcount > 0)

    async def leave(self, number: int) -> None:
        """End a node now."""
        await self._leases.submit(lambda db: db.execute("leave_nodes", {"number": number}).rowcount)

    async def end_expired(self, by: int, at: float) -> list[int]:
        """End the other nodes whose leases had expired at a time."""
        given = {"number": by, "at": at}
        rows = await self._leases.submit(lambda db: db.execute("end_expired_nodes", given).fetchall())
        return sorted(number for (number,) in rows)

    async def end(self, by: int, numbers: Sequence[int]) -> list[int]:
        """End other nodes whose processes have ended."""
        given = {"number": by, "numbers": list(numbers)}
        rows = await self._leases.submit(lambda db: db.execute("end_nodes", given).fetchall())
        return sorted(number for (number,) in rows)

    async def take_runs(self, by: int, limit: int) -> list[Run]:
        """Take open runs that no living node owns."""

        def step(db: Database) -> list[Run]:
            # A node that joins now could take a run, and would not be seen to own it here.
            db.lock(Lock.NODES)
            given = {"number": by, "limit": limit, "leader": LEADER, "most_bytes": EVERYTHING}
            return [RUNS.record(row[:-1]) for row in db.execute("take_runs", given)]

        return sorted(await self._write(step), key=lambda run: run.id)

    async def take_ended_runs(self, by: int, since: float, limit: int) -> int:
        """Take runs that ended lately and that no living node owns."""

        def step(db: Database) -> int:
            db.lock(Lock.NODES)
            return db.execute("take_ended_runs", {"number": by, "limit": limit, "since": since}).rowcount

        return await self._write(step)

    async def owned_runs(self, number: int) -> list[str]:
        """List the ids of the open runs that a node owns."""
        return [
            each for (each,) in await self._read(lambda db: db.execute("owned_runs", {"number": number}).fetchall())
        ]

    async def living(self) -> Living:
        """List the nodes that have not ended."""
        at, numbers, places = await self._read(lambda db: db.execute("living_nodes").fetchone())
        return Living(at, dict(zip(numbers or (), places or (), strict=True)))

    async def nodes(self, limit: int, *, before: int | None = None) -> list[Node]:
        """List nodes."""
        given = {"limit": limit, "before": _LAST if before is None else before}
        return await self._read(
            lambda db: [Node(**dict(zip(_FIELDS, row, strict=True))) for row in db.execute("nodes", given)]
        )

    async def lead(self, name: str, number: int, seconds: float) -> bool:
        """Take or renew the lease of a task."""
        given = {"name": name, "number": number, "seconds": seconds}
        return await self._leases.submit(lambda db: db.execute("lead", given).rowcount > 0)

    async def clock(self) -> float:
        """Return the time of the server's clock."""
        return await self._leases.submit(lambda db: float(db.execute("clock").fetchone()[0]))

    async def note_reload(self) -> int:
        """Count a reload of the config."""
        return await self._write(lambda db: int(db.execute("note_reload").fetchone()[0]))

    async def reloads(self) -> int:
        """Return how many reloads were counted."""
        return await self._read(lambda db: int(db.execute("reloads").fetchone()[0]))

    async def forget_sessions(self, limit: int) -> int:
        """Delete notes of connections that have long ended."""
        given = {"seconds": _KEPT_SESSIONS_SECONDS, "limit": limit}
        return await self._write(lambda db: db.execute("forget_sessions", given).rowcount)


if TYPE_CHECKING:
    _: type[Nodes] = PostgresNodes
