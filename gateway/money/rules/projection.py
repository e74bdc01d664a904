"""Project the cost of the current month from the spending of the last days.

The projection is linear, so that readers can check it: the amount spent so far, plus the rest of the month at the
average rate of the last seven days. If spending began within these seven days, the average starts on that day.
"""

from collections.abc import Mapping

from gateway.domain import windows
from gateway.domain.windows import Window

PACE_DAYS = 7
"""Days in the average, today included. A week contains weekdays and weekends."""

_DAY_MILLISECONDS = 86_400_000
# Shortest period for an average: within the first hour, a single run would dominate it.
_LEAST_MILLISECONDS = 3_600_000


def first_day(now: float) -> int:
    """Return the first day whose spending the projection needs."""
    return windows.day_of(now) - PACE_DAYS + 1


def month_end(spent_microusd: int, by_day: Mapping[int, int], now: float) -> int:
    """Return the projected cost of the current month in micro-dollars.

    `spent_microusd` is the month's spending so far, `by_day` the spending by day; days without spending can be left
    out. Days with a negative sum, from corrections, do not count.
    """
    since = first_day(now)
    recent = {day: amount for day, amount in by_day.items() if since <= day <= windows.day_of(now) and amount > 0}
    if not recent:
        return spent_microusd
    passed = max(round(now * 1000) - min(recent) * _DAY_MILLISECONDS, _LEAST_MILLISECONDS)
    left = round((windows.ends_at(Window.MONTH, now) - now) * 1000)
    return spent_microusd + sum(recent.values()) * left // passed
