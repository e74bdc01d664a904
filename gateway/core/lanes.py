"""Who is served next when many wait and some are slow: slots in all, for each receiver, and for each team.

A receiver that takes its time fills its own slots and nobody else's; a team that has many such receivers fills its own
share. Jobs with the same key are done one after the other, in their order.
"""

from collections import Counter, OrderedDict, deque
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Slots(NamedTuple):
    """How many jobs may be done at the same time."""

    total: int
    per_receiver: int
    per_team: int


class Job(NamedTuple, Generic[T]):
    """Something to be done for a team at a receiver."""

    team: str
    receiver: str
    key: str
    work: T


class Lanes(Generic[T]):
    """Jobs that wait, in a lane for each team and receiver, and how many are being done."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        # In the order in which they are to be served next.
        self._lanes: OrderedDict[tuple[str, str], deque[Job[T]]] = OrderedDict()
        self._waiting_of_receiver: Counter[str] = Counter()
        self._waiting_of_team: Counter[str] = Counter()
        self._running: set[str] = set()
        self._running_of_receiver: Counter[str] = Counter()
        self._running_of_team: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """How many jobs are being done."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        return self._waiting_of_team.total()

    def put(self, job: Job[T]) -> None:
        """Let a job wait for its turn."""
        self._lanes.setdefault((job.team, job.receiver), deque()).append(job)
        self._waiting_of_receiver[job.receiver] += 1
        self._waiting_of_team[job.team] += 1

    def take(self) -> Job[T] | None:
        """Return a job whose turn it is, and count it as being done; `None` if there is none, or no slot for it."""
        if len(self._running) >= self._slots.total:
            return None
        for lane, jobs in self._lanes.items():
            team, receiver = lane
            if self._running_of_team[team] >= self._slots.per_team:
                continue
            if self._running_of_receiver[receiver] >= self._slots.per_receiver:
                continue
            # Only those being done can be in the way, which are few.
            index = next((n for n, job in enumerate(jobs) if job.key not in self._running), None)
            if index is None:
                continue
            job = jobs[index]
            del jobs[index]
            self._serve_others_first(lane)
            _count_down(self._waiting_of_receiver, receiver)
            _count_down(self._waiting_of_team, team)
            self._running.add(job.key)
            self._running_of_receiver[receiver] += 1
            self._running_of_team[team] += 1
            return job
        return None

    def _serve_others_first(self, lane: tuple[str, str]) -> None:
        if self._lanes[lane]:
            self._lanes.move_to_end(lane)
        else:
            del self._lanes[lane]

    def done(self, job: Job[T]) -> None:
        """Give a job's slot back."""
        self._running.remove(job.key)
        _count_down(self._running_of_receiver, job.receiver)
        _count_down(self._running_of_team, job.team)

    def room_of_receiver(self, receiver: str, most: int) -> int:
        """Return how many more jobs may wait for a receiver if there are to be no more than `most`."""
        return max(0, most - self._waiting_of_receiver[receiver])

    def full_receivers(self, most: int) -> list[str]:
        """Return the receivers for which `most` jobs wait already."""
        return [receiver for receiver, waiting in self._waiting_of_receiver.items() if waiting >= most]

    def full_teams(self, most: int) -> list[str]:
        """Return the teams for which `most` jobs wait already."""
        return [team for team, waiting in self._waiting_of_team.items() if waiting >= most]

    def clear(self) -> list[Job[T]]:
        """Let nobody wait any more; return who did."""
        jobs = [job for lane in self._lanes.values() for job in lane]
        self._lanes.clear()
        self._waiting_of_receiver.clear()
        self._waiting_of_team.clear()
        return jobs


def _count_down(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
