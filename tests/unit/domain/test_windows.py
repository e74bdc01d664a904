"""Days and months by UTC."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import windows
from gateway.domain.windows import Window


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("now", "day", "month_began", "day_ends", "month_ends"),
    [
        ("2026-01-31T23:59:59.999", "2026-01-31", "2026-01-01", "2026-02-01", "2026-02-01"),
        ("2026-02-01T00:00:00", "2026-02-01", "2026-02-01", "2026-02-02", "2026-03-01"),
        ("2028-02-29T12:00:00", "2028-02-29", "2028-02-01", "2028-03-01", "2028-03-01"),
        ("2026-12-31T12:00:00", "2026-12-31", "2026-12-01", "2027-01-01", "2027-01-01"),
    ],
)
def test_windows_begin_and_end_at_midnight(
    now: str, day: str, month_began: str, day_ends: str, month_ends: str
) -> None:
    """A budget resets with the first second of the next day, or month."""
    number = windows.day_of(at(now))
    assert windows.text_of(number) == day
    assert windows.first_day(Window.DAY, number) == number
    assert windows.text_of(windows.first_day(Window.MONTH, number)) == month_began
    assert windows.ends_at(Window.DAY, at(now)) == at(day_ends)
    assert windows.ends_at(Window.MONTH, at(now)) == at(month_ends)


def test_month_before_january_is_december() -> None:
    assert windows.month_before(windows.parse_day("2026-01-17")) == windows.parse_day("2025-12-01")


@given(st.floats(min_value=0, max_value=4e9))
def test_every_moment_is_in_its_windows(now: float) -> None:
    day = windows.day_of(now)
    for window in Window:
        assert windows.first_day(window, day) * 86_400 <= now < windows.ends_at(window, now)
        assert windows.first_day(window, windows.day_of(windows.ends_at(window, now))) > windows.first_day(window, day)
    assert windows.parse_day(windows.text_of(day)) == day


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-1-3", "20260131", "2026-02-30", "2026-01-31T00:00", "today", "٢٠٢٦-01-31"]
)
def test_invalid_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a day"):
        windows.parse_day(text)
