"""How often runs are polled."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from gateway.predictions.rules.polling import FirstPolls, next_poll_seconds

AGES = st.floats(0, 1e6)
ACTIVE = st.integers(0, 10_000)
RATES = st.floats(0, 1e6)


@given(AGES, ACTIVE, RATES)
def test_polling_interval_is_bounded(age, active, rate):
    """A quick run is seen at once, a long one within 10 s, and together they stay under half of the limit."""
    gap = next_poll_seconds(age, active, rate)
    fair = active * 60 / max(rate / 2, 1)
    assert gap >= 0.02
    assert gap >= fair
    assert gap <= max(10.0, fair)


@given(AGES, AGES, ACTIVE, ACTIVE, RATES)
def test_polling_interval_grows_with_age_and_number_of_runs(one, other, few, many, rate):
    """The older a run and the more there are, the rarer the polls."""
    assert next_poll_seconds(min(one, other), few, rate) <= next_poll_seconds(max(one, other), few, rate)
    assert next_poll_seconds(one, min(few, many), rate) <= next_poll_seconds(one, max(few, many), rate)


@given(st.floats(1, 120))
def test_end_is_seen_within_a_tenth_of_the_duration(duration):
    """The end of a ten-second run is seen within one second."""
    at = 0.0
    while at < duration:
        at += next_poll_seconds(at, 1, 3000)
    assert at - duration <= max(0.1 * duration, 0.05)


def test_single_run_costs_few_polls():
    """A one-minute run costs about seventy polls, not thousands."""
    at, polls = 0.0, 0
    while at < 60:
        at += next_poll_seconds(at, 1, 3000)
        polls += 1
    assert polls < 80


@given(st.lists(st.floats(0, 5), min_size=1, max_size=100), RATES)
def test_first_polls_of_runs_that_others_have_followed_come_in_turn(pauses: list[float], rate: float):
    """The first at once, and together no more than half of the account's rate allows."""
    polls, now, polled = FirstPolls(), 1000.0, []
    for pause in pauses:
        now += pause
        seconds = polls.next(now, rate)
        assert seconds >= 0.0
        polled.append(now + seconds)
    assert polled[0] == 1000.0 + pauses[0]
    gap = 60 / max(rate / 2, 1)
    assert all(after - before >= gap * (1 - 1e-6) - 1e-6 for before, after in itertools.pairwise(polled))


def test_hundred_runs_of_a_dead_node_are_polled_within_seconds():
    """At 3000 requests a minute."""
    polls = FirstPolls()
    assert max(polls.next(0.0, 3000) for _ in range(100)) <= 4.0
