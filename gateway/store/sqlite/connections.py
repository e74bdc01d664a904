"""The two connections to the file, one for writes and one for reads.

After a caller has awaited a write, its next read sees that write: a read's snapshot is taken after the read was
submitted.
"""

import asyncio
from functools import partial
from pathlib import Path
from typing import TypeVar

from gateway.domain.ports.observers import OperationsObserver
from gateway.store.sql.connections import Connections
from gateway.store.sql.lasting_failures import DAMAGED, LastingFailures
from gateway.store.sqlite.connection import inspect
from gateway.store.sqlite.failures import kind_of, translated
from gateway.store.sqlite.reader import Reader
from gateway.store.sqlite.writer import Writer

T = TypeVar("T")


class SQLiteConnections(Connections):
    """A writer and a reader of one file."""

    _is_shared = False

    def __init__(self, path: Path | str, *, timeout_seconds: float = 5.0, max_pending: int = 10_000) -> None:
        self.path = Path(path)
        self._timeout_seconds = timeout_seconds
        self._writer = Writer(self.path, timeout_seconds=timeout_seconds, max_pending=max_pending)
        self._reader = Reader(self.path, timeout_seconds=timeout_seconds, max_pending=max_pending)
        self._bounds = self._writer.bounds
        self._write = self._writer.submit
        """One connection writes for all lanes. `erases` removes deleted data from the write-ahead log too."""
        self._read = self._reader.submit
        self._lasting_failures = LastingFailures(kind_of, translated)
        self._writer.on_failed = partial(self._failed, "write")
        self._reader.on_failed = partial(self._failed, "read")

    @property
    def pending(self) -> int:
        """Number of operations that are queued or in progress, for a gauge."""
        return self._writer.pending + self._reader.pending

    @property
    def commits(self) -> int:
        """Number of transactions committed since the start, for a counter."""
        return self._writer.commits

    def set_observer(self, observer: OperationsObserver) -> None:
        """Set the observer that is notified of every finished operation."""
        self._observer = observer
        self._writer.on_answered = partial(observer.store_answered, "write")
        self._reader.on_answered = partial(observer.store_answered, "read")

    async def open(self, *, create: bool = True) -> bool:
        """Open the file and bring its schema up to date. Return whether the store is new.

        A file that does not exist is created, or with `create=False` refused. Its folder must exist.
        """
        self._writer.creates = create
        await self._writer.start()
        try:
            await self._reader.start()
        except BaseException:
            await self._writer.stop()
            raise
        return self._writer.is_new

    async def inspect(self) -> bool:
        """Say whether the store exists. Create and change nothing. Raise `StoreUnavailable` if it cannot be opened."""
        return await asyncio.to_thread(inspect, self.path, self._timeout_seconds)

    def _failed(self, lane: str, error: Exception) -> str | None:
        kind = super()._failed(lane, error)
        if kind == DAMAGED and lane == "read":
            # Its cache would hide the damage from writes.
            self._writer.drop_cache()
        return kind

    async def close(self) -> None:
        """Finish the queued operations, then close both connections."""
        # The writer closes last, because the last connection to close writes the write-ahead log into the file.
        await self._reader.stop()
        await self._writer.stop()
