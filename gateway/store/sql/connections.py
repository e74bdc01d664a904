"""The two connections to the file, one for writes and one for reads. Every role of the store uses them.

After a caller has awaited a write, its next read sees that write: a read's snapshot is taken after the read was
submitted.
"""

import asyncio
from functools import partial
from pathlib import Path

from gateway.domain.ports.observers import OperationsObserver
from gateway.store.sql.connection import inspect
from gateway.store.sql.reader import Reader
from gateway.store.sql.troubles import Troubles
from gateway.store.sql.writer import Writer


class Connections:
    """A writer and a reader of one file."""

    def __init__(self, path: Path | str, *, timeout_seconds: float = 5.0, max_pending: int = 10_000) -> None:
        self.path = Path(path)
        self._timeout_seconds = timeout_seconds
        self._writer = Writer(self.path, timeout_seconds=timeout_seconds, max_pending=max_pending)
        self._reader = Reader(self.path, timeout_seconds=timeout_seconds, max_pending=max_pending)
        self._troubles = Troubles()
        self._observer: OperationsObserver | None = None
        self._write = self._writer.submit
        """Run a step in a transaction, atomically. Raise `StoreUnavailable` when the store fails or is late.

        `durable` syncs the transaction to disk before the result is returned. `erases` says that data is deleted, which
        is then removed from the write-ahead log too. The step can run twice, with the first run rolled back, so it must
        only depend on its arguments and the database.
        """
        self._read = self._reader.submit
        """Run a step, which only reads, on one snapshot."""
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

    @property
    def recent_failure(self) -> str | None:
        """What failed within the last minute and may fail again, although the store answers."""
        return self._troubles.recent(asyncio.get_running_loop().time())

    def _failed(self, lane: str, error: Exception) -> None:
        kind = self._troubles.note(lane, error, asyncio.get_running_loop().time())
        if kind is not None and self._observer is not None:
            self._observer.store_failed(lane, kind)

    async def close(self) -> None:
        """Finish the queued operations, then close both connections."""
        # The writer closes last, because the last connection to close writes the write-ahead log into the file.
        await self._reader.stop()
        await self._writer.stop()
