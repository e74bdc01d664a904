"""The documents of runs in progress, bounded in bytes.

A document contains the run's input, with its files if they are data URIs. The store has every document, so those that
do not fit are dropped from memory, the longest unchanged first, and read again when somebody asks.
"""

from collections.abc import Callable
from typing import Protocol


class Holder(Protocol):
    """Holds one document."""

    def drop_document(self) -> None:
        """Hold the document no longer."""
        ...


class DocumentMemory:
    """Bounds the sum of the documents that holders hold."""

    def __init__(self, max_bytes: Callable[[], int]) -> None:
        self._max_bytes = max_bytes
        self._sizes: dict[Holder, int] = {}
        """By holder, the longest unchanged first."""
        self.held_bytes = 0

    def hold(self, holder: Holder, size: int) -> None:
        """Count a holder's new document, and drop older ones of others, or this one if it alone is too large."""
        # Last in order: its document is the newest.
        self.held_bytes += size - self._sizes.pop(holder, 0)
        self._sizes[holder] = size
        while self.held_bytes > self._max_bytes():
            oldest = next(iter(self._sizes))
            self.release(oldest)
            oldest.drop_document()

    def release(self, holder: Holder) -> None:
        """Count a holder's document no longer."""
        self.held_bytes -= self._sizes.pop(holder, 0)
