"""When the store's clock has jumped."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.nodes.rules.clock_readings import TOLERATED_SECONDS, Reading, has_jumped

moments = st.floats(0, 1e6)
latencies = st.floats(0, 5)
skews = st.floats(-1e6, 1e6)


@given(moments, latencies, moments, latencies, skews, st.floats(0, 1), st.floats(0, 1))
def test_clock_that_goes_on_has_not_jumped_however_slow_the_answers_are(
    first: float, first_took: float, second: float, second_took: float, skew: float, one: float, other: float
) -> None:
    before = Reading(first, first + first_took, first + one * first_took + skew)
    after = Reading(second, second + second_took, second + other * second_took + skew)
    assert not has_jumped(before, after)


@pytest.mark.parametrize("sign", [1, -1])
def test_jump_is_seen_if_it_is_larger_than_the_answers_were_slow(sign: int) -> None:
    before, took = Reading(10.0, 10.25, 1000.0), 0.25
    for jump, is_seen in ((TOLERATED_SECONDS, False), (TOLERATED_SECONDS + 2 * took + 0.1, True)):
        assert has_jumped(before, Reading(12.0, 12.25, 1002.0 + sign * jump)) is is_seen
