"""Which runs have changed lately: a read that began before a change may return an older state."""

from typing import Final

from cachetools import LRUCache

_MOST: Final = 100
"""Runs to remember. A read during which more have changed is taken for older."""


class Changes:
    """Changes of records that other nodes have told of, and removals of data."""

    def __init__(self) -> None:
        self.count = 0
        """How many there were. Ask for it before a read."""
        self._of_run: LRUCache[str, int] = LRUCache(_MOST)
        """The number of the last one, by run."""
        self._of_all = 0
        """The number of the last one that may concern any run."""

    def note(self, run_id: str) -> None:
        """Note a change of a run."""
        self.count += 1
        self._of_run[run_id] = self.count

    def note_all(self) -> None:
        """Note a change of many runs."""
        self.count += 1
        self._of_all = self.count

    def may_concern(self, run_id: str, since: int) -> bool:
        """Say whether a run may have changed since there were `since` changes."""
        if self.count == since:
            return False
        return self.count - since > _MOST or self._of_all > since or self._of_run.get(run_id, 0) > since
