"""A node's share of a rate that follows what upstream says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.rates import Rate
from gateway.domain.upstream_response import Answer
from gateway.throttling.rules.adaptive_rate import PROBE_SECONDS, LearnedRate
from gateway.throttling.rules.divided_learned_rate import DividedLearnedRate

RATE = Rate.of(600)
LOW_CREDIT = b'{"detail": "Your rate limit is reduced to 6 requests per minute with a burst of 1 requests."}'
ANSWERS = st.one_of(
    st.builds(lambda seconds: Answer(429, {}, json.dumps({"retry_after": seconds}).encode()), st.integers(1, 60)),
    st.just(Answer(429, {"retry-after": "5"}, LOW_CREDIT)),
    st.builds(lambda left: Answer(200, {"ratelimit-remaining": str(left)}, b""), st.integers(0, 150)),
)


class Owner:
    """What the limiter of a node is to its rate."""

    def __init__(self, share: float = 1.0) -> None:
        self.is_valid, self.told = True, 0
        self.rate = DividedLearnedRate(RATE, lambda: self.is_valid, self.tell)
        self.rate.resize(share, 0.0, 1000.0)

    def tell(self) -> None:
        self.told += 1


@given(st.lists(st.tuples(st.floats(0, 90), st.one_of(st.just("take"), st.just("give_back"), ANSWERS)), max_size=40))
def test_whole_share_is_the_learned_rate_itself(steps):
    """But for waits, which end after a second at most, to look again."""
    alone, divided, now = LearnedRate(RATE), Owner().rate, 1000.0
    for passed, step in steps:
        now += passed
        if step == "take":
            if alone.wait(now) <= 0:
                alone.take(now)
                divided.take(now)
        elif step == "give_back":
            alone.give_back()
            divided.give_back()
        else:
            assert isinstance(step, Answer)
            alone.observe_response(step, now)
            divided.observe_response(step, now)
        paused = divided.paused_seconds(now)
        wait = alone.wait(now)
        assert divided.wait(now) == pytest.approx(min(max(wait, 0.0), max(1.0, paused)), abs=1e-5) or wait < 0
        assert divided.remaining(now) == alone.remaining(now)
        assert divided.rate == alone.rate


def test_node_without_a_valid_lease_has_no_tokens():
    owner = Owner(0.5)
    owner.rate.grant(2)
    assert owner.rate.wait(10.0) <= 0
    assert owner.rate.remaining(10.0) == 52
    owner.is_valid = False
    assert (owner.rate.wait(10.0), owner.rate.remaining(10.0)) == (1.0, 0)


def test_tokens_taken_in_turn_go_first_and_can_be_given_back():
    rate = Owner(0.0).rate
    assert rate.needs_turn
    assert rate.wait(10.0) == 1.0
    rate.grant(1)
    assert rate.wait(10.0) <= 0
    rate.take(10.0)
    assert rate.wait(10.0) == 1.0
    rate.give_back()
    assert rate.wait(10.0) <= 0


def test_pause_is_told_once_and_a_lower_rate_at_once():
    owner = Owner(0.5)
    refusal = Answer(429, {"retry-after": "5"}, b"{}")
    owner.rate.observe_response(refusal, 100.0)
    for _ in range(5):
        owner.rate.observe_response(refusal, 100.1)
    assert owner.told == 1
    assert owner.rate.paused_seconds(101.0) == pytest.approx(4.1)
    owner.rate.observe_response(Answer(429, {"retry-after": "1"}, LOW_CREDIT), 101.0)
    assert owner.told == 2
    owner.rate.observe_response(Answer(200, {"ratelimit-remaining": "100"}, b""), 101.0)
    assert owner.told == 2


def test_what_another_node_was_told_holds_here():
    rate = Owner(0.5).rate
    rate.adopt(Rate.of(300), 5.0, 0.0, 100.0)
    assert rate.wait(104.0) == pytest.approx(1.0)
    assert rate.rate.per_minute == 300
    # All nodes together have one token when the pause ends.
    assert rate.remaining(105.0) == 0
    assert rate.wait(105.0) == pytest.approx(0.2)
    rate.observe_response(Answer(429, {"retry-after": "5"}, b"{}"), 105.0)
    assert rate.rate.per_minute == 300
    rate.wait(110.0 + PROBE_SECONDS)
    assert rate.rate.per_minute == 360


def test_node_that_joins_later_grows_from_where_the_rate_was_lowered():
    rate = Owner().rate
    rate.adopt(Rate.of(300), 0.0, 3 * PROBE_SECONDS + 1, 1000.0)
    assert rate.wait(1000.0) <= 0
    assert rate.rate.per_minute == 480
    assert not Owner().told
