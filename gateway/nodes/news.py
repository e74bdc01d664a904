"""What nodes tell each other: that something has changed, by its name. The change itself is read from the store."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol


class Topic(StrEnum):
    """What something is that has changed, or is wanted."""

    RUN = "run"
    """A run: its state, document or end."""
    CANCEL = "cancel"
    """A run that its owner is to cancel upstream."""
    POLL = "poll"
    """A run whose state upstream its owner is to read now."""
    DEADLINE = "deadline"
    """A prediction with a deadline."""
    KEY = "key"
    """A key."""
    PURGE = "purge"
    """Cache entries that were removed."""
    TEAMS = "teams"
    """The teams in the config."""
    WATCH = "watch"
    """A run whose event log another node reads as it grows."""
    LIMITS = "limits"
    """Shares of limits."""


Listener = Callable[[Sequence[str] | None], None]
"""Called with the names in other nodes' news, or with `None`: anything of the topic may have changed."""


class News(Protocol):
    """News between nodes. It can be lost: whoever depends on it also reads the store now and then."""

    def tell(self, topic: Topic, name: str) -> None:
        """Tell the other nodes. Never blocks or raises. Names are sent together, a moment later."""
        ...

    def add_listener(self, topic: Topic, listener: Listener) -> None:
        """Call `listener` with the names that other nodes tell of."""
        ...


class NoNews:
    """Where there are no other nodes."""

    def tell(self, topic: Topic, name: str) -> None:
        """Do nothing."""

    def add_listener(self, topic: Topic, listener: Listener) -> None:
        """Do nothing."""
