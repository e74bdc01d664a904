"""The circuit breaker, also against a model of it."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.upstream.breaker import Breaker, BreakerState


def opened(at: float = 100.0) -> Breaker:
    breaker = Breaker(threshold=3, open_seconds=10)
    for _ in range(3):
        breaker.failed(at)
    return breaker


def test_few_failures_do_not_open_it():
    """One lost connection blocks no caller."""
    breaker = Breaker(threshold=3, open_seconds=10)
    breaker.failed(1)
    breaker.failed(2)
    assert breaker.state(2) is BreakerState.CLOSED
    assert breaker.refuses_for(2) == 0.0
    breaker.succeeded()
    breaker.failed(3)
    breaker.failed(4)
    assert breaker.refuses_for(4) == 0.0


def test_series_of_failures_opens_it_for_a_while():
    """Callers get 503 at once, with the seconds to wait, instead of a timeout each."""
    breaker = opened(100)
    assert breaker.state(100) is BreakerState.OPEN
    assert breaker.refuses_for(103) == pytest.approx(7)
    assert breaker.state(109.9) is BreakerState.OPEN


def test_one_trial_request_follows():
    """Upstream does not get all requests at once when it comes back."""
    breaker = opened(100)
    assert breaker.state(110) is BreakerState.HALF_OPEN
    assert breaker.refuses_for(110) == 0.0
    assert breaker.refuses_for(111) == pytest.approx(9)
    breaker.succeeded()
    assert breaker.state(111) is BreakerState.CLOSED
    assert breaker.refuses_for(111) == 0.0


def test_failed_trial_opens_it_again():
    """One failure is enough now."""
    breaker = opened(100)
    assert breaker.refuses_for(110) == 0.0
    breaker.failed(112)
    assert breaker.state(112) is BreakerState.OPEN
    assert breaker.refuses_for(113) == pytest.approx(9)


def test_abandoned_trial_ends_by_itself():
    """A caller that disconnected during the trial blocks no other forever."""
    breaker = opened(100)
    assert breaker.refuses_for(110) == 0.0
    assert breaker.refuses_for(120) == 0.0


def test_states_are_the_metrics_values():
    """A dashboard reads 0, 1, 2."""
    assert [int(state) for state in (BreakerState.CLOSED, BreakerState.HALF_OPEN, BreakerState.OPEN)] == [0, 1, 2]


class BreakerModel(RuleBasedStateMachine):
    """Whole seconds and plain words: closed, open until, trial until."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.row = 0
        self.open_until: int | None = None
        self.trial_until: int | None = None

    @initialize(threshold=st.integers(1, 4), open_seconds=st.integers(1, 10))
    def start(self, threshold, open_seconds):
        self.threshold, self.open_seconds = threshold, open_seconds
        self.breaker = Breaker(threshold=threshold, open_seconds=open_seconds)

    @rule(seconds=st.integers(1, 8))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def somebody_asks(self):
        wait = self.breaker.refuses_for(self.now)
        blocked_until = max(self.open_until or 0, self.trial_until or 0)
        assert wait == max(0, blocked_until - self.now)
        if self.open_until is not None and wait == 0:
            self.trial_until = self.now + self.open_seconds

    @rule()
    def upstream_answers(self):
        self.breaker.succeeded()
        self.row, self.open_until, self.trial_until = 0, None, None

    @rule()
    def upstream_fails(self):
        self.breaker.failed(self.now)
        self.row += 1
        if self.trial_until is not None or self.row >= self.threshold:
            self.open_until, self.trial_until = self.now + self.open_seconds, None

    @invariant()
    def it_is_in_the_state_of_the_model(self):
        if not hasattr(self, "breaker"):
            return
        if self.open_until is None:
            expected = BreakerState.CLOSED
        else:
            expected = BreakerState.OPEN if self.now < self.open_until else BreakerState.HALF_OPEN
        assert self.breaker.state(self.now) is expected


BreakerModel.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestBreakerModel = BreakerModel.TestCase
