"""The connections to the database: several for steps that decide, one for sets of hits, one for what may be lost, and
some for reads.

After a caller has awaited a write, its next read sees that write: both are on the primary.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from gateway.domain.ports.observers import OperationsObserver
from gateway.store.postgres.connection import Address
from gateway.store.postgres.database import NodeIdentity, PostgresDatabase
from gateway.store.postgres.failures import kind_of, translated
from gateway.store.postgres.lanes import ReadingLane, WritingLane
from gateway.store.postgres.nodes import PostgresNodes
from gateway.store.postgres.schema import inspect, open_schema
from gateway.store.sql.connections import Connections, Lane
from gateway.store.sql.database import Database, SumBounds
from gateway.store.sql.lasting_failures import LastingFailures

T = TypeVar("T")

_DECIDE: Final = 4
_READ: Final = 2


class PostgresConnections(Connections):
    """Writers and readers of one database."""

    _is_shared = True

    database: type[PostgresDatabase] = PostgresDatabase
    """What steps that write see of a connection."""

    def __init__(
        self,
        url: str,
        password: str | None = None,
        *,
        listen_url: str | None = None,
        timeout_seconds: float = 5.0,
        max_pending: int = 10_000,
        decide: int = _DECIDE,
        read: int = _READ,
    ) -> None:
        """Use the database at `url`. With a pooler there, `listen_url` is the address of the database itself."""
        self.address = Address(url, password, timeout_seconds, is_pooled=listen_url is not None)
        self.listen_address = Address(listen_url or url, password, timeout_seconds)
        """For what needs a session of its own: notifications, migrations."""
        self.identity = NodeIdentity()
        self._bounds = SumBounds()
        lane = partial(
            WritingLane,
            address=self.address,
            max_pending=max_pending,
            database=self.database,
            identity=self.identity,
            bounds=self._bounds,
        )
        self._writers = {
            Lane.DECIDE: lane("store-writer", threads=decide, is_relaxed=False),
            Lane.HITS: lane("store-hits", threads=1, is_relaxed=False),
            Lane.PROGRESS: lane("store-progress", threads=1, is_relaxed=True),
        }
        self._reader = ReadingLane(self.address, max_pending=max_pending, threads=read, identity=self.identity)
        self._write = self._run_in_lane
        self._read = self._reader.submit
        self._nodes = PostgresNodes(self._write, self._read, self.address, self.identity)
        self._lasting_failures = LastingFailures(kind_of, translated)
        for writer in self._writers.values():
            writer.on_failed = partial(self._failed, "write")
        self._reader.on_failed = partial(self._failed, "read")

    @property
    def pending(self) -> int:
        """Number of operations that are queued or in progress, for a gauge."""
        return sum(writer.pending for writer in self._writers.values()) + self._reader.pending

    def set_observer(self, observer: OperationsObserver) -> None:
        """Set the observer that is notified of every finished operation."""
        self._observer = observer
        for writer in self._writers.values():
            writer.on_answered = partial(observer.store_answered, "write")
            writer.on_retried = observer.store_retried
        self._reader.on_answered = partial(observer.store_answered, "read")
        self._reader.on_retried = observer.store_retried

    async def open(self, *, create: bool = True) -> bool:
        """Connect and bring the schema up to date. Return whether the store is new.

        With `create=False`, a database without a store is refused. The database itself must exist.
        """
        migration = await asyncio.to_thread(open_schema, self.listen_address, create=create)
        for lane in self._lanes():
            await lane.start()
        await self._nodes.start()
        return migration.is_new

    async def inspect(self) -> bool:
        """Say whether the store exists. Create and change nothing. Raise `StoreUnavailable` if it cannot be used."""
        return await asyncio.to_thread(inspect, self.listen_address, self.address)

    async def close(self) -> None:
        """Finish the queued operations, then close all connections."""
        for lane in self._lanes():
            await lane.stop()
        await self._nodes.stop()

    def _lanes(self) -> "list[WritingLane | ReadingLane]":
        return [*self._writers.values(), self._reader]

    def _run_in_lane(
        self,
        step: Callable[[Database], T],
        *,
        durable: bool = False,  # noqa: ARG002  a commit is synced, except in the lane for what may be lost
        erases: bool = False,  # noqa: ARG002  deleted rows go with VACUUM
        lane: Lane = Lane.DECIDE,
    ) -> asyncio.Future[T]:
        """Run `step` in a transaction on one of the lane's connections."""
        return self._writers[lane].submit(step)
