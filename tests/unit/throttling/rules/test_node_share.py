"""A node's share of a token bucket."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import rates
from gateway.domain.rates import Rate
from gateway.throttling.rules import node_share

RATE = Rate(60.0, 12)
SHARES = st.floats(0.01, 1.0)


@given(st.lists(st.tuples(st.floats(0, 30), st.booleans()), max_size=40))
def test_whole_share_is_the_bucket_itself(steps):
    now, whole, own = 1000.0, rates.FULL, rates.FULL
    for passed, gives_back in steps:
        now += passed
        assert node_share.wait(own, RATE, 1.0, now) == pytest.approx(rates.wait(whole, RATE, now), abs=1e-6)
        if gives_back:
            whole, own = whole - RATE.interval, own - RATE.interval
        else:
            whole, own = rates.take(whole, RATE, now), node_share.take(own, RATE, 1.0, now)


@given(SHARES, SHARES, st.floats(0, 12), st.floats(0, 5))
def test_change_of_a_share_keeps_its_tokens(share, to, level, tokens):
    """Nothing is added but what comes with it, and nothing beyond its part of the burst."""
    level = min(level, share * RATE.burst)
    full_at, given_up = node_share.resize(
        node_share.at_level(level, RATE, share, 50.0), RATE, share, 50.0, to=to, tokens=tokens
    )
    held = node_share.level(full_at, RATE, to, 50.0)
    assert held == pytest.approx(min(level - given_up + tokens, to * RATE.burst))
    assert given_up == pytest.approx(level * max(0.0, 1 - to / share))


def test_half_a_share_has_half_the_rate_and_half_the_burst():
    full_at = 0.0
    for _ in range(6):
        assert node_share.wait(full_at, RATE, 0.5, 10.0) == 0
        full_at = node_share.take(full_at, RATE, 0.5, 10.0)
    assert node_share.wait(full_at, RATE, 0.5, 10.0) == pytest.approx(2.0)
    assert node_share.wait(full_at, RATE, 0.5, 11.0, spare=1.0) == pytest.approx(3.0)


def test_no_share_has_no_tokens_and_starts_with_those_that_come():
    full_at, given_up = node_share.resize(0.0, RATE, 0.5, 10.0, to=0.0)
    assert (node_share.level(full_at, RATE, 0.0, 99.0), given_up) == (0.0, 6.0)
    assert node_share.wait(full_at, RATE, 0.0, 99.0) == math.inf
    full_at, _ = node_share.resize(full_at, RATE, 0.0, 99.0, to=0.25, tokens=2.0)
    assert node_share.level(full_at, RATE, 0.25, 99.0) == pytest.approx(2.0)
