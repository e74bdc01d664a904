"""Who is served next when many wait and some are slow: slots in all, for each receiver, and for each team.

A receiver that takes its time fills its own slots and nobody else's; a team that has many such receivers fills its own
share. Jobs with the same key are done one at a time. Urgent ones go before the others of their lane, and they alone
count when it is asked whose lanes are full: what is merely nice to have keeps nothing waiting.
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
    is_urgent: bool = False


class _Lane(NamedTuple, Generic[T]):
    urgent: deque[Job[T]]
    others: deque[Job[T]]


class DeliverySlots(Generic[T]):
    """Jobs that wait, in a lane for each team and receiver, and how many are being done."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        # In the order in which they are to be served next.
        self._lanes: OrderedDict[tuple[str, str], _Lane[T]] = OrderedDict()
        self._waiting = 0
        self._urgent_of_receiver: Counter[str] = Counter()
        self._urgent_of_team: Counter[str] = Counter()
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
        return self._waiting

    def put(self, job: Job[T]) -> None:
        """Let a job wait for its turn."""
        lane = self._lanes.setdefault((job.team, job.receiver), _Lane(deque(), deque()))
        (lane.urgent if job.is_urgent else lane.others).append(job)
        self._waiting += 1
        if job.is_urgent:
            self._urgent_of_receiver[job.receiver] += 1
            self._urgent_of_team[job.team] += 1

    def take(self) -> Job[T] | None:
        """Return a job whose turn it is, and count it as being done; `None` if there is none, or no slot for it."""
        if len(self._running) >= self._slots.total:
            return None
        for place, lane in self._lanes.items():
            team, receiver = place
            if self._running_of_team[team] >= self._slots.per_team:
                continue
            if self._running_of_receiver[receiver] >= self._slots.per_receiver:
                continue
            job = self._first_free(lane.urgent) or self._first_free(lane.others)
            if job is not None:
                self._serve_others_first(place, lane)
                self._begin(job)
                return job
        return None

    def _first_free(self, jobs: deque[Job[T]]) -> Job[T] | None:
        # Only those being done can be in the way, which are few.
        index = next((n for n, job in enumerate(jobs) if job.key not in self._running), None)
        if index is None:
            return None
        job = jobs[index]
        del jobs[index]
        return job

    def _serve_others_first(self, place: tuple[str, str], lane: _Lane[T]) -> None:
        if lane.urgent or lane.others:
            self._lanes.move_to_end(place)
        else:
            del self._lanes[place]

    def _begin(self, job: Job[T]) -> None:
        self._waiting -= 1
        if job.is_urgent:
            _count_down(self._urgent_of_receiver, job.receiver)
            _count_down(self._urgent_of_team, job.team)
        self._running.add(job.key)
        self._running_of_receiver[job.receiver] += 1
        self._running_of_team[job.team] += 1

    def done(self, job: Job[T]) -> None:
        """Give a job's slot back."""
        self._running.remove(job.key)
        _count_down(self._running_of_receiver, job.receiver)
        _count_down(self._running_of_team, job.team)

    def full_receivers(self, most: int) -> list[str]:
        """Return the receivers for which `most` urgent jobs wait already."""
        return [receiver for receiver, waiting in self._urgent_of_receiver.items() if waiting >= most]

    def full_teams(self, most: int) -> list[str]:
        """Return the teams for which `most` urgent jobs wait already."""
        return [team for team, waiting in self._urgent_of_team.items() if waiting >= most]

    def clear(self) -> list[Job[T]]:
        """Let nobody wait any more; return who did."""
        jobs = [job for lane in self._lanes.values() for job in (*lane.urgent, *lane.others)]
        self._lanes.clear()
        self._waiting = 0
        self._urgent_of_receiver.clear()
        self._urgent_of_team.clear()
        return jobs


def _count_down(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
