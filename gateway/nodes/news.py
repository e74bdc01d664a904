"""What nodes tell each other: that something has changed, by its name. The change itself is read from the store."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol


class Topic(StrEnum):
    """What something is that has changed, or is wanted."""

    RUN = "run"
    """A run: its state, document or end."""
    EVENTS = "events"
    """A run whose stored event log has grown."""
    PREDICTION = "prediction"
    """A prediction that has ended for its caller before its run, as `of_run` names it."""
    CANCEL = "cancel"
    """A run that its owner is to cancel upstream."""
    POLL = "poll"
    """A run whose state upstream its owner is to read now."""
    JOINED = "joined"
    """A prediction with a deadline or a webhook that has joined a run elsewhere, as `of_run` names it."""
    KEY = "key"
    """A key."""
    PURGE = "purge"
    """Data of ended runs that was removed; without a name."""
    TEAMS = "teams"
    """The config, which was loaded again; without a name."""
    WATCH = "watch"
    """A run whose event log another node reads as it grows."""
    LIMITS = "limits"
    """Shares of limits."""
    FREED = "freed"
    """A team whose creates may have room under a limit again."""


def of_run(run_id: str, prediction_id: str) -> str:
    """Return the name of a prediction in news. Only nodes that have to do with its run need to look for it."""
    return f"{run_id}/{prediction_id}"


def split(name: str) -> tuple[str, str]:
    """Return the ids of the run and of the prediction in a name that `of_run` has made."""
    run_id, _, prediction_id = name.partition("/")
    return run_id, prediction_id


Listener = Callable[[Sequence[str] | None], None]
"""Called with the names in other nodes' news, or with `None`: anything of the topic may have changed."""


class News(Protocol):
    """News between nodes. It can be lost: whoever depends on it also reads the store now and then.

    All of it happens on the event loop. Listeners do no I/O.
    """

    @property
    def is_shared(self) -> bool:
        """Whether there can be other nodes."""
        ...

    @property
    def is_listening(self) -> bool:
        """Whether news of other nodes arrive now."""
        ...

    @property
    def waiting(self) -> int:
        """Number of names that wait to be sent."""
        ...

    def tell(self, topic: Topic, name: str) -> None:
        """Tell the other nodes. Never blocks or raises. Names are sent together, a moment later."""
        ...

    def add_listener(self, topic: Topic, listener: Listener) -> None:
        """Call `listener` with the names that other nodes tell of."""
        ...


class NoNews:
    """Where there are no other nodes."""

    is_shared = False
    is_listening = False
    waiting = 0

    def tell(self, topic: Topic, name: str) -> None:
        """Do nothing."""

    def add_listener(self, topic: Topic, listener: Listener) -> None:
        """Do nothing."""
