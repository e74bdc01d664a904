"""What a month will have cost: a straight line that anybody can check."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import times, windows
from gateway.money.rules.projection import PACE_DAYS, first_day, month_end

DAY = 86_400


def at(text: str) -> float:
    return times.parse(text)


def day(text: str) -> int:
    return windows.parse_day(text)


def test_steady_pace_continues_to_the_end():
    """A dollar a day for half of June is thirty dollars at its end."""
    now = at("2026-06-16T00:00:00Z")
    spent = {day("2026-06-01") + n: 1_000_000 for n in range(15)}
    # Of the last seven days the seventh has only just begun, so that six days' worth were spent in six days.
    assert month_end(15_000_000, spent, now) == 30_000_000


def test_only_the_last_seven_days_count():
    """What was expensive at the month's beginning and is over does not make its end expensive."""
    now = at("2026-06-16T00:00:00Z")
    spent = {day("2026-06-02"): 90_000_000, day("2026-06-15"): 1_000_000}
    assert month_end(91_000_000, spent, now) == 91_000_000 + 15 * 1_000_000


def test_days_of_the_previous_month_count():
    """On the first of a month there is a pace already."""
    now = at("2026-07-01T00:00:00Z")
    spent = {first_day(now) + n: 2_000_000 for n in range(PACE_DAYS - 1)}
    assert month_end(0, spent, now) == 31 * 2_000_000


def test_new_team_counts_from_its_first_day():
    """A team that began yesterday at noon has a pace of two days, not of seven."""
    now = at("2026-06-16T12:00:00Z")
    spent = {day("2026-06-15"): 2_000_000, day("2026-06-16"): 1_000_000}
    assert month_end(3_000_000, spent, now) == 3_000_000 + 3_000_000 * 29 // 3


def test_first_minute_is_not_taken_for_a_rate():
    """A minute past midnight a cent was spent: it counts as an hour's worth at least."""
    now = at("2026-06-30T00:01:00Z")
    assert month_end(10_000, {day("2026-06-30"): 10_000}, now) == 10_000 + 10_000 * 1439 // 60


def test_no_recent_spend_projects_nothing_more():
    now = at("2026-06-16T00:00:00Z")
    assert month_end(0, {}, now) == 0
    assert month_end(5, {day("2026-06-01"): 5}, now) == 5
    assert month_end(-3, {day("2026-06-15"): -3}, now) == -3


@given(
    spent=st.dictionaries(st.integers(20_600, 20_640), st.integers(-(10**12), 10**12)),
    now=st.floats(20_620 * DAY, 20_641 * DAY),
    so_far=st.integers(0, 10**15),
)
def test_projection_is_never_less_than_what_is_spent(spent: dict[int, int], now: float, so_far: int):
    assert month_end(so_far, spent, now) >= so_far
