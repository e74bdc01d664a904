"""Whether this process may act for the runs that it follows.

A node has a lease in the store. It counts the lease on its own monotonic clock from the moment when the renewal was
sent, which is before the store's clock began to count it. So a node knows that its lease has expired before any other
node can take over its runs, also after a pause of the whole process.
"""

from collections.abc import Callable
from typing import Protocol


class Membership(Protocol):
    """The own process, as one of the nodes."""

    @property
    def number(self) -> int:
        """Its number; 0 where one process serves from a store."""
        ...

    def is_alive(self) -> bool:
        """Say whether its lease is valid."""
        ...

    def may_send(self) -> bool:
        """Say whether the lease is valid for long enough to send upstream what acts: a create or a cancel.

        Ask directly before the first byte is sent.
        """
        ...

    def add_lost_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the lease is lost: its runs are no longer this node's."""
        ...

    def add_joined_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` when it has joined again, under a new number."""
        ...


class OnlyNode:
    """The process that alone serves from a store: it owns every run, and cannot lose them."""

    number = 0

    def is_alive(self) -> bool:
        """Return true."""
        return True

    def may_send(self) -> bool:
        """Return true."""
        return True

    def add_lost_listener(self, listener: Callable[[], None]) -> None:
        """Do nothing: nothing is lost."""

    def add_joined_listener(self, listener: Callable[[], None]) -> None:
        """Do nothing: it does not join again."""
