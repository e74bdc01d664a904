"""When a message is tried again, and who receives it."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.webhooks.rules.deliveries import Receipt, Result, next_attempt, receiver_of

FAILED = Receipt(Result.ANSWERED, "answered 500")
HOUR = 3600.0


def pauses(max_attempts: int, jitter: float) -> list[float]:
    found = (next_attempt(FAILED, attempts, max_attempts, jitter) for attempts in itertools.count(1))
    return [pause for pause in itertools.takewhile(lambda pause: pause is not None, found) if pause is not None]


@given(st.floats(0, 1, exclude_max=True))
def test_twelve_attempts_are_spread_over_hours(jitter: float):
    """A receiver that is down for an hour misses nothing, and is not tried every few seconds meanwhile."""
    found = pauses(12, jitter)
    assert len(found) == 11
    assert 1.25 * HOUR < sum(found) < 3 * HOUR
    assert found[0] <= 5
    assert found == sorted(found)


@given(st.integers(1, 100), st.floats(0, 1, exclude_max=True))
def test_attempts_and_pauses_are_limited(max_attempts: int, jitter: float):
    """However many attempts are allowed, no pause is longer than six hours."""
    found = pauses(max_attempts, jitter)
    assert len(found) == max_attempts - 1
    assert all(0 < pause <= 6 * HOUR for pause in found)


def test_simultaneous_failures_are_retried_apart():
    """Jitter spreads them."""
    assert next_attempt(FAILED, 5, 12, 0.0) != next_attempt(FAILED, 5, 12, 0.9)


@pytest.mark.parametrize(("asked", "pause"), [(None, 2.5), (1.0, 2.5), (60.0, 60.0), (1e9, HOUR)])
def test_retry_after_is_followed_within_limits(asked: float | None, pause: float):
    """`Retry-After` is heeded, within reason."""
    assert next_attempt(Receipt(Result.ANSWERED, "answered 429", asked), 1, 12, 0.0) == pause


def test_delivery_refused_by_the_gateway_is_not_retried():
    """The rules would be the same the next time."""
    assert next_attempt(Receipt(Result.REFUSED), 1, 12, 0.0) is None


@pytest.mark.parametrize(
    ("url", "receiver"),
    [
        ("https://Hooks.Example.com/a?b=c", "hooks.example.com:443"),
        ("http://hooks.example.com:8080/", "hooks.example.com:8080"),
        ("http://[::1]/", "::1:80"),
        ("https://x:99999/", ""),
        ("nonsense", ":0"),
    ],
)
def test_receiver_is_a_host_and_a_port(url: str, receiver: str):
    """Two URLs at one host share its slots."""
    assert receiver_of(url) == receiver
