"""Choose the next delivery job, with limits on concurrent jobs in all, per receiver and per team.

A slow receiver occupies only its own slots, and a team with many slow receivers only its own share. Jobs with the same
key run one at a time. Urgent jobs go before other jobs of the same team and receiver. Only urgent jobs count in
`full_receivers` and `full_teams`, so that optional jobs do not delay urgent ones.
"""

from collections import Counter, OrderedDict, deque
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Slots(NamedTuple):
    """Maximum numbers of concurrent jobs."""

    total: int
    per_receiver: int
    per_team: int


class Job(NamedTuple, Generic[T]):
    """A job for a team at a receiver."""

    team: str
    receiver: str
    key: str
    work: T
    is_urgent: bool = False


class _Queue(NamedTuple, Generic[T]):
    urgent: deque[Job[T]]
    others: deque[Job[T]]


class DeliverySlots(Generic[T]):
    """Waiting jobs, in a queue per team and receiver, and the running jobs."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        # By team and receiver, in the order in which they are served.
        self._queues: OrderedDict[tuple[str, str], _Queue[T]] = OrderedDict()
        self._waiting = 0
        self._urgent_of_receiver: Counter[str] = Counter()
        self._urgent_of_team: Counter[str] = Counter()
        self._running: set[str] = set()
        self._running_of_receiver: Counter[str] = Counter()
        self._running_of_team: Counter[str] = Counter()

    @property
    def running(self) -> int:
        """Number of running jobs."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of waiting jobs."""
        return self._waiting

    def put(self, job: Job[T]) -> None:
        """Queue a job."""
        queue = self._queues.setdefault((job.team, job.receiver), _Queue(deque(), deque()))
        (queue.urgent if job.is_urgent else queue.others).append(job)
        self._waiting += 1
        if job.is_urgent:
            self._urgent_of_receiver[job.receiver] += 1
            self._urgent_of_team[job.team] += 1

    def take(self) -> Job[T] | None:
        """Remove and return the next job, and count it as running; `None` if no waiting job has a free slot."""
        if len(self._running) >= self._slots.total:
            return None
        for name, queue in self._queues.items():
            team, receiver = name
            if self._running_of_team[team] >= self._slots.per_team:
                continue
            if self._running_of_receiver[receiver] >= self._slots.per_receiver:
                continue
            job = self._first_startable(queue.urgent) or self._first_startable(queue.others)
            if job is not None:
                self._move_to_end(name, queue)
                self._begin(job)
                return job
        return None

    def _first_startable(self, jobs: deque[Job[T]]) -> Job[T] | None:
        # The search is short: it only skips jobs whose key is running, and few are.
        index = next((n for n, job in enumerate(jobs) if job.key not in self._running), None)
        if index is None:
            return None
        job = jobs[index]
        del jobs[index]
        return job

    def _move_to_end(self, name: tuple[str, str], queue: _Queue[T]) -> None:
        if queue.urgent or queue.others:
            self._queues.move_to_end(name)
        else:
            del self._queues[name]

    def _begin(self, job: Job[T]) -> None:
        self._waiting -= 1
        if job.is_urgent:
            _decrement(self._urgent_of_receiver, job.receiver)
            _decrement(self._urgent_of_team, job.team)
        self._running.add(job.key)
        self._running_of_receiver[job.receiver] += 1
        self._running_of_team[job.team] += 1

    def done(self, job: Job[T]) -> None:
        """Free the slot of a finished job."""
        self._running.remove(job.key)
        _decrement(self._running_of_receiver, job.receiver)
        _decrement(self._running_of_team, job.team)

    def full_receivers(self, most: int) -> list[str]:
        """Return the receivers with at least `most` waiting urgent jobs."""
        return [receiver for receiver, waiting in self._urgent_of_receiver.items() if waiting >= most]

    def full_teams(self, most: int) -> list[str]:
        """Return the teams with at least `most` waiting urgent jobs."""
        return [team for team, waiting in self._urgent_of_team.items() if waiting >= most]

    def clear(self) -> list[Job[T]]:
        """Remove and return all waiting jobs."""
        jobs = [job for queue in self._queues.values() for job in (*queue.urgent, *queue.others)]
        self._queues.clear()
        self._waiting = 0
        self._urgent_of_receiver.clear()
        self._urgent_of_team.clear()
        return jobs


def _decrement(counter: Counter[str], name: str) -> None:
    counter[name] -= 1
    if not counter[name]:
        del counter[name]
