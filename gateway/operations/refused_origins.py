"""Origins of web pages whose requests CORS does not allow, for the console: the most recent ones, with a count.

Anybody can send any origin, so the number of origins and their length are bounded.
"""

from collections import OrderedDict
from typing import Final

from gateway.domain.ports.clock import Clock
from gateway.operations.rules.dashboard_view import RefusedOrigin

MAX_ORIGINS: Final = 50
LONGEST_ORIGIN: Final = 200


class RefusedOrigins:
    """The origins that were refused since the process started. The least recent one is dropped first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._found: OrderedDict[str, RefusedOrigin] = OrderedDict()

    def note(self, origin: str, team: str | None) -> None:
        """Count a refusal. `team` is the caller's; `None` for a preflight, which the origins of all teams allow."""
        shown = origin[:LONGEST_ORIGIN]
        known = self._found.pop(shown, None)
        count = 1 if known is None else known.count + 1
        self._found[shown] = RefusedOrigin(at=self._clock.now(), origin=shown, team=team, count=count)
        if len(self._found) > MAX_ORIGINS:
            self._found.popitem(last=False)

    def newest(self, limit: int) -> tuple[RefusedOrigin, ...]:
        """Return the origins, the most recently refused first."""
        return tuple(reversed(self._found.values()))[:limit]
