"""A node's part of a request rate, and what it shows of the whole."""

import math

import pytest

from gateway.domain import rates
from gateway.domain.limits import SubjectKind
from gateway.throttling.rules.divided_bucket import DividedBucket
from gateway.throttling.rules.divided_rate import Seen, Want


def bucket(per_minute: int = 600, burst: int = 100) -> DividedBucket:
    return DividedBucket("team:red", SubjectKind.TEAM, per_minute, burst, "team", 1000.0)


def left(made: DividedBucket, now: float) -> int:
    made.estimate(now)
    return rates.remaining(made.full_at, made.rate, now)


def test_unused_rate_is_free_and_full():
    made = bucket()
    assert (made.own_wait(1000.0, held=False), made.record_wait(1000.0, held=False)) == (math.inf, 0.0)
    assert made.want(held=True) == Want("team:red", made.rate, 50.0)
    assert left(made, 1000.0) == 100


def test_what_is_shown_assumes_that_other_shares_are_as_full():
    made = bucket()
    made.see(Seen(0.25, 0.0), 1000.0)
    made.resize(0.25, 1000.0, 25.0)
    assert left(made, 1000.0) == 50
    for _ in range(5):
        made.take_own(1000.0)
    assert left(made, 1000.0) == 40
    assert made.is_elsewhere
    assert left(made, 1005.0) == 75
    made.see(Seen(0.0, 0.0), 1005.0)
    made.resize(0.0, 1005.0)
    assert left(made, 1005.0) == 75


def test_share_and_record_refill_at_their_parts_of_the_rate():
    made = bucket()
    made.see(Seen(0.5, 0.0), 1000.0)
    assert made.record_wait(1000.0, held=False) == pytest.approx(0.2)
    assert made.record_wait(1000.0, held=True) == pytest.approx(5.2)
    assert made.record_wait(1000.2, held=False) == pytest.approx(0.0, abs=1e-6)
    made.see(Seen(0.005, 0.0), 1000.0)
    assert made.record_wait(1000.9, held=False) == math.inf
    assert made.record_wait(1001.0, held=False) == 0
    assert made.is_short
    made.resize(0.5, 1000.0, 50.0)
    for _ in range(50):
        assert made.own_wait(1000.0, held=False) == 0
        made.take_own(1000.0)
    assert made.own_wait(1000.0, held=False) == pytest.approx(0.2)
    made.give_back_own()
    assert made.own_wait(1000.0, held=False) == 0


def test_demand_rises_at_once_and_falls_within_a_second_or_two():
    made = bucket()
    made.requests = 10
    assert made.demand(1000.1) == 0.0
    assert made.demand(1000.5) == pytest.approx(20.0)
    assert made.demand(1001.0) == pytest.approx(10.0)
    assert made.demand(1003.0) == 0.0


def test_reload_changes_the_rate_and_keeps_the_share():
    made = bucket()
    made.resize(0.5, 1000.0, 50.0)
    made.configure(60, 10)
    assert made.share == 0.5
    assert made.own_wait(1000.0, held=False) == 0
    for _ in range(5):
        made.take_own(1000.0)
    assert made.own_wait(1000.0, held=False) == pytest.approx(2.0)
