"""Rates: a bucket lets a burst through at once, then one an interval, and never more."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import rates
from gateway.domain.rates import FULL, Rate

NOW = 1_764_000_000.0


@pytest.mark.parametrize(("per_minute", "burst"), [(600, 100), (60, 10), (6, 1), (1, 1), (0.5, 1), (11, 1), (12, 2)])
def test_default_burst_is_a_sixth_of_a_minute(per_minute: float, burst: int) -> None:
    """N/6, at least 1."""
    assert Rate.of(per_minute).burst == burst
    assert Rate.of(per_minute, 7).burst == 7


def test_burst_passes_at_once_and_the_next_waits() -> None:
    """60 a minute with a burst of 3: three at once, then one a second."""
    rate, state = Rate.of(60, 3), FULL
    for left in (3, 2, 1):
        assert rates.remaining(state, rate, NOW) == left
        assert rates.wait(state, rate, NOW) == 0
        state = rates.take(state, rate, NOW)
    assert rates.remaining(state, rate, NOW) == 0
    assert rates.wait(state, rate, NOW) == pytest.approx(1)
    assert rates.wait(state, rate, NOW + 1) == pytest.approx(0, abs=1e-6)
    assert rates.reset_seconds(state, NOW) == pytest.approx(3)


def test_request_for_more_than_a_burst_is_refused() -> None:
    """To wait for it would be to wait forever."""
    assert rates.wait(FULL, Rate.of(60, 3), NOW, 4) == math.inf


@given(
    per_minute=st.integers(1, 6000),
    burst=st.integers(1, 50),
    gaps=st.lists(st.floats(0, 5), min_size=1, max_size=100),
)
def test_no_window_exceeds_the_rate_and_one_burst(per_minute: int, burst: int, gaps: list[float]) -> None:
    """However the requests come, what passes in any period is at most its share and a burst."""
    rate, state, now = Rate.of(per_minute, burst), FULL, NOW
    passed: list[float] = []
    for gap in gaps:
        now += gap
        may_pass = rates.wait(state, rate, now) == 0
        assert may_pass == (rates.remaining(state, rate, now) > 0) or rates.wait(state, rate, now) < 1e-5
        if may_pass:
            state = rates.take(state, rate, now)
            passed.append(now)
    for first, begin in enumerate(passed):
        for last in range(first, len(passed)):
            assert last - first + 1 <= burst + (passed[last] - begin) / rate.interval + 1e-3
