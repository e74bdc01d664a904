"""The order in which responses that wait for room get it.

Within a team, first come, first served. Teams take turns, so a team with many waiting requests delays another team by
one of them. A request that waits for its own team's room holds up no other team. One that waits for the room of all may
be overtaken by others that fit, but only by so many bytes; then nobody else gets room before it. So a large response
cannot wait forever, and a team cannot hold up others for nothing.
"""

from collections import OrderedDict, deque
from collections.abc import Callable


class Turn:
    """One waiting request."""

    __slots__ = ("is_create", "passed", "size", "team")

    def __init__(self, team: str, size: int, *, is_create: bool = False) -> None:
        self.team = team
        self.size = size
        self.is_create = is_create
        self.passed = 0
        """Bytes of other teams that got room while this one was its team's first and lacked only the room of all."""


class Turns:
    """Waiting requests, in a queue per team."""

    def __init__(
        self, fits_team: Callable[[str, int], bool], fits_all: Callable[[int], bool], most_passed: Callable[[], int]
    ) -> None:
        """Take whether so many bytes have room in a team's part and in all, and the bytes that may overtake one."""
        self._fits_team = fits_team
        self._fits_all = fits_all
        self._most_passed = most_passed
        self._queues: OrderedDict[str, deque[Turn]] = OrderedDict()
        """By team, the next team's first."""
        self.waiting = 0
        """Number of requests that wait."""

    def waiting_of(self, team: str) -> int:
        """Return the number of a team's requests that wait."""
        return len(self._queues.get(team, ()))

    def create_bytes_of(self, team: str) -> int:
        """Return the bytes that a team's creates wait for."""
        return sum(turn.size for turn in self._queues.get(team, ()) if turn.is_create)

    def add(self, turn: Turn) -> None:
        """Put a request at the end of its team's queue."""
        self._queues.setdefault(turn.team, deque()).append(turn)
        self.waiting += 1

    def remove(self, turn: Turn) -> None:
        """Remove a request that no longer waits."""
        queue = self._queues[turn.team]
        queue.remove(turn)
        self.waiting -= 1
        if not queue:
            del self._queues[turn.team]

    def may_overtake(self, team: str, size: int) -> bool:
        """Return whether a new request gets room at once. If so, it counts as having overtaken those that wait."""
        if not self.waiting:
            return self._fits_team(team, size) and self._fits_all(size)
        if team in self._queues or not (self._fits_team(team, size) and self._fits_all(size)):
            return False
        delayed = self._delayed()
        if any(turn.passed >= self._most_passed() for turn in delayed):
            return False
        for turn in delayed:
            turn.passed += size
        return True

    def next(self) -> Turn | None:
        """Remove and return the next request that has room. Its bytes must be counted before the next call."""
        for team, queue in self._queues.items():
            turn = queue[0]
            if not self._fits_team(team, turn.size):
                continue
            if self._fits_all(turn.size):
                for other in self._delayed():
                    other.passed += turn.size
                self.remove(turn)
                if team in self._queues:
                    self._queues.move_to_end(team)
                return turn
            if turn.passed >= self._most_passed():
                return None
        return None

    def _delayed(self) -> list[Turn]:
        """Return the first of each team that lacks only the room of all."""
        firsts = [queue[0] for queue in self._queues.values()]
        return [turn for turn in firsts if self._fits_team(turn.team, turn.size) and not self._fits_all(turn.size)]
