"""Budget windows: days and months, in UTC.

A day is the number of days since the epoch, so a window is a range of integers and nothing has to be reset when a day
or a month ends.
"""

import math
import re
from datetime import date
from enum import StrEnum

_DAY_SECONDS = 86_400
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_EPOCH = date(1970, 1, 1).toordinal()


class Window(StrEnum):
    """The window of a budget."""

    DAY = "day"
    MONTH = "month"


def day_of(at: float) -> int:
    """Return the day that contains a time."""
    return math.floor(at / _DAY_SECONDS)


def first_day(window: Window, day: int) -> int:
    """Return the first day of the window that contains a day."""
    return day if window is Window.DAY else _number(_date(day).replace(day=1))


def last_day(window: Window, day: int) -> int:
    """Return the last day of the window that contains a day."""
    if window is Window.DAY:
        return day
    month = _date(day).replace(day=1)
    following = (
        month.replace(year=month.year + 1, month=1) if month.month == 12 else month.replace(month=month.month + 1)
    )
    return _number(following) - 1


def ends_at(window: Window, now: float) -> float:
    """Return when the current window ends, as an epoch time."""
    return float((last_day(window, day_of(now)) + 1) * _DAY_SECONDS)


def month_before(day: int) -> int:
    """Return the first day of the month before the one that contains a day."""
    return first_day(Window.MONTH, first_day(Window.MONTH, day) - 1)


def text_of(day: int) -> str:
    """Format a day: `2026-01-31`."""
    return _date(day).isoformat()


def parse_day(text: str) -> int:
    """Parse a day in the format of `text_of`. Raise `ValueError` for anything else."""
    try:
        day = date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        day = None
    if day is None:
        raise ValueError("expected a day (for example: 2026-01-31)")
    return _number(day)


def _date(day: int) -> date:
    return date.fromordinal(_EPOCH + day)


def _number(day: date) -> int:
    return day.toordinal() - _EPOCH
