"""What a step sees of a database: statements by name, and locks (docs/architecture.md, Store).

A step is a function of a `Database`. It runs in one transaction, and can run twice, with the first run rolled back. So
it depends only on its arguments and the database.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from gateway.domain.ledger import MOST_VALUES_A_DAY
from gateway.nodes.news import Topic
from gateway.store.sql.locks import Lock

Parameters = Mapping[str, Any] | Sequence[Any]
"""Values by name, or in order for the `?` of a statement."""


Named = tuple[str, str, int, str]
"""Team, tag, day and value of a sum; for a user, the tag is empty."""
_MOST_KNOWN = 10_000


class SumBounds:
    """How many names of a kind are counted one by one. It can change while steps run."""

    tag_values = MOST_VALUES_A_DAY
    """Values of a cost tag, for each team, key and day. Further ones are counted together."""

    def __init__(self) -> None:
        self.known_names: set[Named] = set()
        """Some of the names that are known to have a sum. They keep it, or lose it to the others for good."""

    def remember_names(self, names: Collection[Named]) -> None:
        """Add names that have a sum. Threads share them."""
        if len(self.known_names) + len(names) > _MOST_KNOWN:
            self.known_names = set()
        self.known_names.update(names)


class Rows(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int:
        """Number of rows that the statement changed."""
        ...

    def fetchone(self) -> Any:
        """Return the next row; `None` after the last."""
        ...

    def fetchall(self) -> list[Any]:
        """Return the rows that are left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...

    def close(self) -> None:
        """Forget the rows that are left."""
        ...


class Database(Protocol):
    """A connection inside a transaction."""

    def execute(self, name: str, parameters: Parameters = ()) -> Rows:
        """Execute a statement of the store."""
        ...

    def executemany(self, name: str, parameters: Iterable[Parameters]) -> Rows:
        """Execute a statement of the store once for each set of parameters."""
        ...

    def lock(self, lock: Lock, *names: str) -> None:
        """Lock something against other steps until this one ends, where steps run at the same time.

        Rows that a step reads after it has a lock are newer than the last step that had it. Take locks in the order of
        `Lock`. Does nothing where one writer runs all steps.
        """
        ...

    @property
    def bounds(self) -> SumBounds:
        """The bounds of sums."""
        ...

    @property
    def node(self) -> int:
        """The number of the node whose step it is, and that owns the runs it starts; 0 where there is one process."""
        ...

    def tell(self, topic: Topic, *names: str) -> None:
        """Tell all nodes when the step is committed, this one too. Not in steps about money, which it would slow down.

        Does nothing where one process serves.
        """
        ...

    def keep_node(self) -> bool:
        """Say whether the node has not ended. If so, it does not end before the step does."""
        ...

    @property
    def is_shared(self) -> bool:
        """Whether other steps can commit between the statements of this one."""
        ...
