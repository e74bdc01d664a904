"""The runs of this node whose event logs other nodes read as they grow."""

from collections.abc import Iterable

from gateway.domain.ports.clock import Clock

WATCH_SECONDS = 2.0
"""How often a node says that it watches a run."""
_KEPT = 3
"""How many of these may be missed."""


class Watchers:
    """The runs whose logs other nodes read as they grow."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.until: dict[str, float] = {}
        """When a run is no longer watched, unless its watchers say so again."""

    def add(self, run_id: str) -> None:
        """Note that a run is watched."""
        self.until[run_id] = self._clock.monotonic() + _KEPT * WATCH_SECONDS

    def has(self, run_id: str) -> bool:
        """Return whether a run is watched."""
        return self.until.get(run_id, 0.0) > self._clock.monotonic()

    def any_of(self, run_ids: Iterable[str]) -> bool:
        """Return whether one of these runs is watched; forget those that are not any more."""
        if not self.until:
            return False
        now = self._clock.monotonic()
        self.until = {run_id: until for run_id, until in self.until.items() if until > now}
        return any(run_id in self.until for run_id in run_ids)
