"""What every role of the store uses: a way to write and a way to read.

After a caller has awaited a write, its next read sees that write.
"""

import asyncio
import enum
from collections.abc import Callable
from typing import Protocol, TypeVar

from gateway.domain.ports.observers import OperationsObserver
from gateway.store.sql.database import Database, SumBounds
from gateway.store.sql.lasting_failures import LastingFailures

T = TypeVar("T")


class Lane(enum.Enum):
    """Which connections run a write, where there are several."""

    DECIDE = "decide"
    """What makes an id visible, involves money, or deletes."""
    HITS = "hits"
    """Sets of hits."""
    PROGRESS = "progress"
    """What may be lost when a machine fails: parts of event logs, the state of runs in progress, times of last use."""


class Write(Protocol):
    """Runs a step in a transaction, atomically."""

    def __call__(
        self, step: Callable[[Database], T], /, *, durable: bool = ..., erases: bool = ..., lane: Lane = ...
    ) -> asyncio.Future[T]:
        """Raise `StoreUnavailable` when the store fails or is late.

        `durable` syncs the transaction to disk before the result is returned. `erases` says that data is deleted, for
        an engine that removes it from the disk. `step` can run twice, with the first run rolled back, so it must only
        depend on its arguments and the database.
        """
        ...


class Read(Protocol):
    """Runs a step, which only reads, on one snapshot. It can run twice."""

    def __call__(self, step: Callable[[Database], T], /) -> asyncio.Future[T]:
        """Raise `StoreUnavailable` when the store fails or is late."""
        ...


class Connections:
    """Runs steps on a database."""

    _is_shared: bool
    """Whether steps run at the same time."""
    _write: Write
    _read: Read
    _lasting_failures: LastingFailures
    _bounds: SumBounds
    _observer: OperationsObserver | None = None

    @property
    def is_shared(self) -> bool:
        """Whether other processes use the same store."""
        return self._is_shared

    @property
    def recent_failure(self) -> str | None:
        """What failed within the last minute and may fail again, although the store answers."""
        return self._lasting_failures.recent(asyncio.get_running_loop().time())

    def bound_tag_values(self, most: int) -> None:
        """Set how many values of a tag are counted by name, for each team and day."""
        self._bounds.tag_values = most

    def _failed(self, lane: str, error: Exception) -> str | None:
        """Note that an operation has failed; return the kind of a lasting failure."""
        kind = self._lasting_failures.note(lane, error, asyncio.get_running_loop().time())
        if kind is not None and self._observer is not None:
            self._observer.store_failed(lane, kind)
        return kind
