"""The two connections to the file, one for writes and one for reads. Every role of the store uses them.

After a caller has awaited a write, its next read sees that write: a read's snapshot is taken after the read was
submitted.
"""

import asyncio
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from gateway.domain.ports.observers import OperationsObserver
from gateway.store.sql.reader import Reader
from gateway.store.sql.writer import Writer

T = TypeVar("T")


class Connections:
    """A writer and a reader of one file."""

    def __init__(self, path: Path | str, *, timeout_seconds: float = 5.0, max_pending: int = 10_000) -> None:
        self.path = Path(path)
        self._writer = Writer(self.path, timeout_seconds=timeout_seconds, max_pending=max_pending)
        self._reader = Reader(self.path, timeout_seconds=timeout_seconds, max_pending=max_pending)

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
        self._writer.on_answered = partial(observer.store_answered, "write")
        self._reader.on_answered = partial(observer.store_answered, "read")

    async def open(self) -> None:
        """Open the file, create it if it does not exist, and migrate its schema. Raise `StoreUnavailable`."""
        await self._writer.start()
        try:
            await self._reader.start()
        except BaseException:
            await self._writer.stop()
            raise

    async def close(self) -> None:
        """Finish the queued operations, then close both connections."""
        # The writer closes last, because the last connection to close writes the write-ahead log into the file.
        await self._reader.stop()
        await self._writer.stop()

    def _write(
        self, step: Callable[[sqlite3.Connection], T], *, durable: bool = False, erases: bool = False
    ) -> asyncio.Future[T]:
        """Run `step` in a transaction, atomically. Raise `StoreUnavailable` when the store fails or is late.

        `durable` syncs the transaction to disk before the result is returned. `erases` says that data is deleted, which
        is then removed from the write-ahead log too. `step` can run twice, with the first run rolled back, so it must
        only depend on its arguments and the database.
        """
        return self._writer.submit(step, durable=durable, erases=erases)

    def _read(self, step: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Run `step`, which only reads, on one snapshot."""
        return self._reader.submit(step)
