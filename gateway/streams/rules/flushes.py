"""Which logs are written now, where other nodes read some of them as they grow.

Those are written at every flush. The others are written when their time has come, a bounded number at a time, so that
their writes are spread and hold up the watched ones for a moment only.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

MOST_OTHERS = 100
"""Logs beside the watched ones in one flush: 2,500 a second, if a flush begins every 40 ms."""
_FEWEST_MERGES = 10


class Flush(NamedTuple):
    """The logs of one flush."""

    watched: list[str]
    others: list[str]
    has_more: bool
    """Whether the time of more of the others has come."""


def flush(waiting: Mapping[str, float], is_watched: Callable[[str], bool], now: float) -> Flush:
    """Return what is written now, of logs with the times from when on each is written, in the order of these times."""
    watched: list[str] = []
    others: list[str] = []
    for run_id, due_at in waiting.items():
        if is_watched(run_id):
            watched.append(run_id)
        elif due_at <= now:
            others.append(run_id)
    return Flush(watched, others[:MOST_OTHERS], len(others) > MOST_OTHERS)


def most_merges(count: int) -> int:
    """Return of how many logs the small parts are replaced by one in a flush of `count` logs.

    More than come to that on average, so that none waits for long, and not all at once because they began at once.
    """
    return max(_FEWEST_MERGES, count // 10)
