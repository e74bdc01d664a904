"""A node among others, in memory: its number, and what it tells and hears."""

from collections import defaultdict
from typing import TYPE_CHECKING

from gateway.nodes.membership import Membership, OnlyNode
from gateway.nodes.news import Listener, News, Topic


class NumberedNode(OnlyNode):
    """A node that always has its lease."""

    number: int

    def __init__(self, number: int, *, leads: bool = True) -> None:
        self.number = number
        self.leads = leads
        self.has_lease = True

    def may_send(self) -> bool:
        """Say whether it has a lease."""
        return self.has_lease

    def is_leader(self) -> bool:
        """Say whether it leads."""
        return self.leads


class FakeNews:
    """Remembers what this node tells. A test says what others tell."""

    is_shared = True
    is_listening = True
    waiting = 0

    def __init__(self) -> None:
        self.told: list[tuple[Topic, str]] = []
        self._listeners: dict[Topic, list[Listener]] = defaultdict(list)

    def tell(self, topic: Topic, name: str) -> None:
        """Tell the others."""
        self.told.append((topic, name))

    def add_listener(self, topic: Topic, listener: Listener) -> None:
        """Listen to the others."""
        self._listeners[topic].append(listener)

    def hear(self, topic: Topic, *names: str) -> None:
        """Let another node tell of these names."""
        for listener in self._listeners[topic]:
            listener(names)

    def doubt(self) -> None:
        """Let anything have changed."""
        for topic in Topic:
            for listener in self._listeners[topic]:
                listener(None)

    def of(self, topic: Topic) -> list[str]:
        """Return the names that were told of a topic."""
        return [name for told, name in self.told if told is topic]


if TYPE_CHECKING:
    _news: type[News] = FakeNews
    _membership: type[Membership] = NumberedNode
