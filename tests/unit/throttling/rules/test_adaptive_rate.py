"""The account's rate follows what upstream says: down at once, up with care."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.rates import Rate
from gateway.domain.upstream_response import Answer
from gateway.throttling.rules.adaptive_rate import (
    FLOOR_PER_MINUTE,
    HALVING_SECONDS,
    PROBE_SECONDS,
    LearnedRate,
    Throttle,
    read_throttle,
)

PLAIN = "Request was throttled. Your rate limit resets in ~30s."
LOW_CREDIT = (
    "Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute with a burst "
    "of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~5s."
)


def throttled(detail: str = PLAIN, *, retry_after: float | None = 30, header: str | None = None) -> Answer:
    body: dict[str, object] = {"detail": detail, "status": 429}
    if retry_after is not None:
        body["retry_after"] = retry_after
    return Answer(429, {} if header is None else {"retry-after": header}, json.dumps(body).encode())


def ok(remaining: str, reset: str = "1") -> Answer:
    return Answer(201, {"ratelimit-remaining": remaining, "ratelimit-reset": reset}, b"{}")


def learned(per_minute: float = 600) -> LearnedRate:
    return LearnedRate(Rate.of(per_minute))


def sent(rate: LearnedRate, now: float, seconds: float, step: float = 0.05) -> int:
    """Send whenever it is allowed, looking twenty times a second; return how many went."""
    count = 0
    for tick in range(int(seconds / step)):
        while rate.wait(now + tick * step) <= 0:
            rate.take(now + tick * step)
            count += 1
    return count


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (throttled(), Throttle(30)),
        (throttled(LOW_CREDIT, retry_after=5), Throttle(5, Rate(6, 1))),
        (throttled(LOW_CREDIT, retry_after=None), Throttle(5, Rate(6, 1))),
        (throttled(retry_after=None), Throttle(30)),
        (throttled(retry_after=7, header="12"), Throttle(12)),
        (throttled("reduced to 1 requests per second", retry_after=1), Throttle(1, Rate(60, 10))),
        (throttled("reduced to 30 requests per hour", retry_after=1), Throttle(1, Rate(0.5, 1))),
        (throttled("reduced to 0 requests per minute", retry_after=1), Throttle(1)),
        (throttled("Slow down.", retry_after=None), Throttle()),
        (Answer(429, {}, b"<html>429</html>"), Throttle()),
        (Answer(429, {}, b"[" * 100_000), Throttle()),
        (Answer(429, {}, b"\xff"), Throttle()),
    ],
)
def test_both_refusal_texts_are_parsed(answer, expected):
    """As recorded; any other text is a refusal without a rate."""
    assert read_throttle(answer) == expected


def test_configured_rate_counts_until_upstream_refuses():
    """A sixth of a minute's worth at once, then evenly."""
    rate = learned()
    assert sent(rate, 1000.0, 60) == pytest.approx(100 + 600, abs=11)
    assert not rate.is_reduced


def test_refusal_pauses_for_as_long_as_upstream_says():
    """Nothing goes for 30 seconds; then one to test, and not the whole burst."""
    rate = learned()
    rate.observe_response(throttled(), 1000.0)
    assert rate.wait(1000.0) == 30.0
    assert (rate.remaining(1029.9), rate.remaining(1030.0)) == (0, 1)
    assert sent(rate, 1030.0, 0.1) == 1


def test_low_credit_sets_six_a_minute():
    """The refusal's text gives the rate, with its burst of one."""
    rate = learned()
    rate.observe_response(throttled(LOW_CREDIT, retry_after=5), 1000.0)
    assert rate.rate == Rate(6, 1)
    assert rate.wait(1000.0) == 5.0
    assert sent(rate, 1005.0, 55) == 6


def test_refusal_without_a_rate_halves_the_rate():
    """Upstream takes less than is configured, and does not say how much."""
    rate = learned()
    rate.observe_response(throttled(), 1000.0)
    assert rate.rate.per_minute == 300
    assert sent(rate, 1030.0, 60) <= 301


def test_simultaneous_refusals_count_once():
    """Twenty creates were on their way when the first was refused: the rate is not halved twenty times."""
    rate = learned()
    for late in range(20):
        rate.observe_response(throttled(), 1000.0 + late / 100)
    assert rate.rate.per_minute == 300
    assert rate.throttled == 20
    rate.observe_response(throttled(), 1031.0)
    assert rate.rate.per_minute == 150


@pytest.mark.parametrize("seconds", [1.01, 2.0, 5.0])
@pytest.mark.parametrize("storm", [5.0, 12.0, 30.0])
def test_storm_of_refusals_halves_the_rate_once_in_ten_seconds(seconds: float, storm: float):
    """Upstream refuses everything for a while. Afterwards most of the rate is left, and creates go out at once."""
    rate, at, halved = learned(), 1000.0, []
    while at < 1000.0 + storm:
        before = rate.rate.per_minute
        rate.observe_response(throttled(retry_after=1), at)
        if rate.rate.per_minute < before:
            halved.append(at)
        at += seconds
    assert all(later - earlier >= HALVING_SECONDS for earlier, later in pairwise(halved))
    assert len(halved) <= storm // HALVING_SECONDS + 1
    assert rate.rate.per_minute == 600 / 2 ** len(halved)
    # Ten creates right after a short storm are sent within the default `max_wait_seconds`.
    assert storm > 20 or sent(rate, at, 20) >= 10


def test_reduced_rate_of_upstream_applies_in_a_storm_too():
    """A number is not halved, it is taken."""
    rate = learned()
    rate.observe_response(throttled(retry_after=1), 1000.0)
    rate.observe_response(throttled(LOW_CREDIT, retry_after=5), 1002.0)
    assert rate.rate == Rate(6, 1)


def test_rate_recovers_in_steps():
    """A tenth of the configured rate for each minute without a refusal, up to all of it."""
    rate = learned()
    rate.observe_response(throttled(retry_after=10), 1000.0)
    seen = []
    for minute in range(8):
        rate.wait(1010.0 + minute * PROBE_SECONDS)
        seen.append(rate.rate.per_minute)
    assert seen == [300, 360, 420, 480, 540, 600, 600, 600]
    assert not rate.is_reduced


def test_step_up_releases_no_burst():
    """A higher rate is no reason for a sudden burst."""
    rate = learned()
    rate.observe_response(throttled(LOW_CREDIT, retry_after=5), 1000.0)
    sent(rate, 1005.0, 55)
    assert sent(rate, 1065.0, 1) <= 2


def test_failed_probe_costs_one_refusal():
    """The account is still low on credit a minute later: one create is refused, and goes again."""
    rate = learned()
    now, refused = 1000.0, 0
    rate.observe_response(throttled(LOW_CREDIT, retry_after=5), now)
    for _ in range(600):
        now += 1.0
        if rate.wait(now) <= 0:
            rate.take(now)
            if rate.rate.per_minute > 6:
                refused += 1
                rate.observe_response(throttled(LOW_CREDIT, retry_after=5), now)
    assert refused <= 10


def test_rate_never_falls_below_six_a_minute():
    """Refusal after refusal: six a minute are still tried, so that the end of it is noticed."""
    rate, now = learned(), 1000.0
    for _ in range(50):
        rate.observe_response(throttled(retry_after=1), now)
        now += 2.0
    assert rate.rate.per_minute == FLOOR_PER_MINUTE
    slow, now = learned(2), 1000.0
    for _ in range(3):
        slow.observe_response(throttled(retry_after=1), now)
        now += 2.0
    assert slow.rate.per_minute == 2


def test_ratelimit_remaining_limits_the_burst():
    """Someone else uses the account too: five are left there, so five go at once."""
    rate = learned()
    rate.observe_response(ok("5"), 1000.0)
    assert rate.remaining(1000.0) == 5
    rate.observe_response(ok("59999"), 1000.0)
    assert rate.remaining(1000.0) == 5


def test_zero_remaining_waits_for_the_reset():
    """`ratelimit-remaining: 0`, `ratelimit-reset: 1`."""
    rate = learned()
    rate.observe_response(ok("0"), 1000.0)
    assert rate.wait(1000.0) == 1.0


@pytest.mark.parametrize("value", ["", "-1", "many", "1e3", "٣", "9" * 30])
def test_invalid_headers_are_ignored(value):
    """The count goes on as it was."""
    rate = learned()
    rate.observe_response(ok(value, value), 1000.0)
    assert (rate.remaining(1000.0), rate.wait(1000.0)) == (100, 0.0)


def test_refusal_without_a_pause_still_pauses():
    """Upstream says "now" again and again: it is not asked as fast as it responds."""
    rate, now = learned(), 1000.0
    rate.observe_response(throttled(retry_after=0), now)
    assert rate.wait(now) >= 0.5


def test_absurd_pause_is_limited():
    """A proxy that says "come back next year" does not close the gateway for a year."""
    rate = learned()
    rate.observe_response(throttled(retry_after=1e9), 1000.0)
    assert rate.wait(1000.0) == 600.0


@given(
    st.lists(
        st.tuples(
            st.floats(0, 120),
            st.sampled_from([throttled(), throttled(LOW_CREDIT, retry_after=5), ok("0"), ok("3"), ok("599"), None]),
        ),
        max_size=30,
    )
)
def test_rate_never_exceeds_the_configured_and_never_stops(observe_response):
    """Between any two responses no more goes than the configured rate and burst; and eventually something goes."""
    rate, now, full = learned(60), 1000.0, Rate.of(60)
    for seconds, answer in observe_response:
        gone = sent(rate, now, seconds, step=0.5)
        assert gone <= full.burst + seconds / full.interval + 1
        now += seconds
        assert 0 < rate.rate.per_minute <= 60
        assert 1 <= rate.rate.burst <= full.burst
        if answer is not None:
            rate.observe_response(answer, now)
    assert rate.wait(now) <= 30 + 60 / FLOOR_PER_MINUTE
    rate.wait(now + 11 * PROBE_SECONDS + 30)
    assert not rate.is_reduced


def test_new_configured_rate_applies_at_once():
    """What was used stays used."""
    rate = learned(600)
    assert sent(rate, 0.0, 0.06) == 100
    rate.configure(Rate.of(60))
    assert rate.rate.per_minute == 60
    assert rate.wait(0.0) > 0


def test_learned_rate_survives_a_new_configured_rate():
    """Upstream's limit counts, below whatever the operator allows."""
    rate = learned(600)
    rate.observe_response(throttled(LOW_CREDIT, retry_after=5), 0.0)
    rate.configure(Rate.of(1200))
    assert rate.is_reduced
    assert rate.rate == Rate(6, 1)
    rate.configure(Rate.of(3))
    assert not rate.is_reduced
    assert rate.rate.per_minute == 3
