"""The cost and duration of the last runs of each target, from which the next run is estimated.

Bounded in runs a target and in targets: the runs that ended last are kept, and the targets that ran last. The order in
which runs are added makes no difference.
"""

from bisect import bisect_left
from collections.abc import Iterator
from operator import attrgetter

import msgspec

from gateway.domain.money import Amounts
from gateway.domain.records import Status

MOST_RUNS = 100
"""Of a hundred runs, five are above the P95. With fewer runs, the P95 would depend on one or two."""
MOST_TARGETS = 1000
ENOUGH_RUNS = 5
"""Minimum for an estimate. The first runs of a target can be unusual: a cold start, or a mistake in the input."""

_PERCENT = 95
_MICROUSD = attrgetter("microusd")
_MILLISECONDS = attrgetter("milliseconds")


class Sample(msgspec.Struct, frozen=True, order=True):
    """The cost of one run that has ended. `run_id` orders runs that ended at the same time."""

    ended_at: float
    run_id: str
    microusd: int
    milliseconds: int


class Typical(msgspec.Struct, frozen=True):
    """Percentiles of the cost and duration of a target's runs."""

    p95: Amounts
    median: Amounts


def is_representative(status: Status) -> bool:
    """Return whether a run with this final status says something about the cost of other runs.

    The cost of a cancelled run depends on when its caller cancelled, and an aborted run never started.
    """
    return status in (Status.SUCCEEDED, Status.FAILED)


class Recent:
    """The cost history of every target."""

    def __init__(self, *, most_targets: int = MOST_TARGETS, most_runs: int = MOST_RUNS) -> None:
        self._most_targets = most_targets
        self._most_runs = most_runs
        self._samples: dict[str, list[Sample]] = {}
        self._typical: dict[str, Typical] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[tuple[str, Sample]]:
        for target, samples in self._samples.items():
            for sample in samples:
                yield target, sample

    def add(self, target: str, sample: Sample) -> None:
        """Add a run. Adding it twice changes nothing."""
        samples = self._samples.setdefault(target, [])
        place = bisect_left(samples, sample)
        if place < len(samples) and samples[place] == sample:
            return
        samples.insert(place, sample)
        if len(samples) > self._most_runs:
            del samples[0]
        self._typical.pop(target, None)
        if len(self._samples) > self._most_targets:
            self._drop_oldest()

    def typical(self, target: str) -> Typical | None:
        """Return the percentiles of a target; `None` with fewer than `ENOUGH_RUNS` runs."""
        known = self._typical.get(target)
        if known is not None:
            return known
        samples = self._samples.get(target, ())
        if len(samples) < ENOUGH_RUNS:
            return None
        costs = sorted(map(_MICROUSD, samples))
        lengths = sorted(map(_MILLISECONDS, samples))
        # By nearest rank, which is always one of the values.
        high, middle = -(-_PERCENT * len(samples) // 100) - 1, -(-50 * len(samples) // 100) - 1
        typical = Typical(p95=Amounts(costs[high], lengths[high]), median=Amounts(costs[middle], lengths[middle]))
        self._typical[target] = typical
        return typical

    def _drop_oldest(self) -> None:
        target = min(self._samples, key=lambda each: (self._samples[each][-1], each))
        del self._samples[target]
        self._typical.pop(target, None)
