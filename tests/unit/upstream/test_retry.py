"""When reads from upstream are repeated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.upstream_response import Answer
from gateway.upstream.retry import MAX_ATTEMPTS, is_worth_retrying, pause

JSON = {"content-type": "application/json"}
ATTEMPTS = st.integers(1, MAX_ATTEMPTS - 1)
JITTER = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("status", "headers", "worth"),
    [
        (200, JSON, False), (404, JSON, False), (422, JSON, False), (401, JSON, False), (429, JSON, True),
        (500, JSON, False), (502, JSON, True), (503, JSON, True), (504, JSON, True), (500, {}, True),
        (520, {"content-type": "text/html"}, True), (413, {"content-type": "text/html"}, False),
    ],
)  # fmt: skip
def test_throttling_and_outages_are_retried(status, headers, worth):
    """The API's own refusal would be the same again."""
    assert is_worth_retrying(Answer(status, headers, b"")) is worth


@given(ATTEMPTS, JITTER)
def test_backoff_grows_within_limits(attempt, jitter):
    """No caller waits long for a retry, and no two come back together."""
    first, later = pause(attempt, None, jitter), pause(attempt + 1, None, jitter)
    assert first is not None
    assert 0.1 <= first <= 5
    assert later is None or later > first
    assert pause(attempt, Answer(503, {}, b""), jitter) == first


@given(ATTEMPTS, JITTER, st.integers(0, 1000))
def test_short_retry_after_is_followed_exactly(attempt, jitter, asked):
    """A longer one is passed on to the caller, who knows whether to wait."""
    answer = Answer(429, {"retry-after": str(asked)}, b"")
    assert pause(attempt, answer, jitter) == (asked if asked <= 5 else None)


@given(st.integers(MAX_ATTEMPTS, 100), JITTER)
def test_last_attempt_is_the_last(attempt, jitter):
    """No request is repeated forever."""
    assert pause(attempt, None, jitter) is None
    assert pause(attempt, Answer(429, {"retry-after": "0"}, b""), jitter) is None
