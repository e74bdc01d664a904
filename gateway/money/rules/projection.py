"""What a month will have cost at its end, if it goes on as in the last days.

A straight line, on purpose: whoever reads it can check it. What was spent so far is a fact, and the rest of the month
costs what the last seven days cost per second of theirs, or fewer days where there was no spending before.
"""

from collections.abc import Mapping

from gateway.domain import windows
from gateway.domain.windows import Window

PACE_DAYS = 7
"""Days whose pace counts, today's part included: weekdays and weekends alike are among them."""

_DAY_MILLISECONDS = 86_400_000
# Within the first hour a single run would be taken for a rate.
_LEAST_MILLISECONDS = 3_600_000


def first_day(now: float) -> int:
    """Return the first day that the projection asks for."""
    return windows.day_of(now) - PACE_DAYS + 1


def month_end(spent_microusd: int, by_day: Mapping[int, int], now: float) -> int:
    """Return what the month under way will have cost: `spent_microusd` so far, `by_day` in micro-dollars a day.

    Days without spending may be left out. Corrections do not make the pace negative.
    """
    since = first_day(now)
    recent = {day: amount for day, amount in by_day.items() if since <= day <= windows.day_of(now) and amount > 0}
    if not recent:
        return spent_microusd
    passed = max(round(now * 1000) - min(recent) * _DAY_MILLISECONDS, _LEAST_MILLISECONDS)
    left = round((windows.ends_at(Window.MONTH, now) - now) * 1000)
    return spent_microusd + sum(recent.values()) * left // passed
