"""Request rates: everybody asked, then everybody charged; creates in line, and room for what cannot be held."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.limits import Allowance, Limits
from gateway.domain.teams import Caller, Team
from gateway.throttling.rules import rate_headers
from gateway.throttling.rules.request_rates import (
    NAME,
    Bucket,
    RateExceeded,
    RequestRates,
    admit,
    give_back,
    retry_after,
    status,
)

NOW = 1000.0


def allowance(own: int | None = None, user: int | None = None, address: int | None = None) -> Allowance:
    return Allowance(
        own=Limits(requests_per_minute=own),
        per_user=Limits(requests_per_minute=user),
        per_address=Limits(requests_per_minute=address),
    )


def caller(team: Allowance | None = None, key: Allowance | None = None, **more: object) -> Caller:
    given = {"scopes": frozenset(), "models": (), "key_id": "red/default"} | more
    return Caller(
        team=Team(name="red", scopes=frozenset(), allowance=team or Allowance()), allowance=key or Allowance(), **given
    )


def admitted(buckets: tuple[Bucket, ...], now: float = NOW, *, held: bool = False) -> int:
    count = 0
    while admit(buckets, now, held=held) is None:
        count += 1
    return count


def limits_of(buckets: tuple[Bucket, ...]) -> list[int]:
    return [bucket.limit for bucket in buckets]


def test_unlimited_caller_costs_nothing():
    """No bucket, no state, however many callers there are."""
    table = RequestRates()
    assert table.buckets(caller(), "ann", "192.0.2.1") == ()
    assert table.kept == 0
    known = table.known(caller())
    assert (known.buckets, known.by_user, known.by_address) == ((), (), ())


def test_request_counts_for_all_its_limits():
    """The team's rate, the key's, the user's; each is the same one at the next request."""
    table = RequestRates()
    who = caller(allowance(600, 60), allowance(300, 30))
    buckets = table.buckets(who, "ann")
    assert limits_of(buckets) == [600, 300, 60, 30]
    assert table.buckets(who, "ann") == buckets
    other = table.buckets(who, "ben")
    assert (other[:2], set(other[2:]) & set(buckets)) == (buckets[:2], set())


def test_refused_request_costs_the_other_limits_nothing():
    """A user over its rate, trying again and again, takes nothing from its team."""
    table = RequestRates()
    buckets = table.buckets(caller(allowance(600, 6)), "ann")
    assert admitted(buckets) == 1
    for _ in range(1000):
        assert isinstance(admit(buckets, NOW), RateExceeded)
    assert status(buckets[0], NOW).used == 1


def test_refusal_names_the_longest_wait():
    """Both are empty; another attempt makes sense when the slower one has a token again."""
    table = RequestRates()
    buckets = table.buckets(caller(allowance(60), allowance(6)))
    admitted(buckets)
    over = admit(buckets, NOW)
    assert over is not None
    assert (over.bucket, retry_after(over)) == (buckets[1], 10)
    assert retry_after(RateExceeded(buckets[0], 0.001)) == 1


def test_request_that_was_not_carried_out_is_given_back():
    """The caller had disconnected while it was held."""
    buckets = RequestRates().buckets(caller(allowance(60)))
    assert admitted(buckets) == 10
    give_back(buckets)
    assert admitted(buckets) == 1


def test_addresses_count_for_publishable_keys_only():
    """A backend calls for all of its users from one address."""
    team = allowance(address=60)
    assert RequestRates().known(caller(team, is_public=True)).by_address
    assert not RequestRates().known(caller(team)).by_address


def test_held_creates_leave_room_for_polls():
    """They do not take the last of the burst: polls of runs that are paid for pass."""
    buckets = RequestRates().buckets(caller(allowance(60)))
    assert admitted(buckets) == 10
    later = NOW + 7
    assert admitted(buckets, later, held=True) == 2
    assert admitted(buckets, later) == 5


def test_least_recently_used_users_are_forgotten():
    """Callers invent names: those not used for longest start afresh. The team's count goes on."""
    table = RequestRates(max_kept=10)
    who = caller(allowance(6000, 6))
    first = table.buckets(who, "user-0")
    for number in range(1, 25):
        table.buckets(who, f"user-{number}")
    assert (table.kept, table.dropped) == (10, 15)
    again = table.buckets(who, "user-0")
    assert again[0] is first[0]
    assert again[1] is not first[1]


def test_least_recently_used_tokens_are_forgotten():
    """Each browser token is a caller of its own; what is known of them is limited."""
    table = RequestRates(max_kept=10)
    own = Limits(requests_per_minute=10)
    for number in range(25):
        assert table.known(caller(token_id=str(number), token_limits=own)).buckets
    assert table.kept <= 10
    assert len(table._known) <= 10


@given(
    st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=100),
    st.sampled_from([6, 60, 600]),
)
def test_no_order_of_requests_exceeds_the_rate(steps, per_minute):
    """Held or not: in any period no more pass than the burst and what was refilled meanwhile."""
    buckets = RequestRates().buckets(caller(allowance(per_minute)))
    rate, now, times = buckets[0].rate, NOW, []
    for seconds, held in steps:
        now += seconds
        for _ in range(5):
            if admit(buckets, now, held=held) is None:
                times.append(now)
    for start, first in enumerate(times):
        for count, last in enumerate(times[start:], 1):
            assert count <= rate.burst + (last - first) / rate.interval + 1e-6


def test_standing_shows_what_is_left():
    """As in `/gateway/limits`."""
    buckets = RequestRates().buckets(caller(allowance(60)))
    for _ in range(4):
        admit(buckets, NOW)
    shown = status(buckets[0], NOW)
    assert (shown.name, shown.of, shown.limit, shown.used, shown.remaining) == ("requests_per_minute", "team", 60, 4, 6)
    assert shown.reset_seconds == pytest.approx(4.0)


POLICY = re.compile(r'"[a-z-]+";q=\d+;w=\d+(, "[a-z-]+";q=\d+;w=\d+)*')


def test_headers_list_all_policies_and_the_tightest_limit():
    """Structured fields as in the draft; every policy has a name of its own."""
    table = RequestRates()
    buckets = table.buckets(caller(allowance(600, 60), allowance(300, 30)), "ann")
    text = rate_headers.policy(buckets)
    assert POLICY.fullmatch(text)
    assert text.split(", ") == [
        '"team-requests";q=600;w=60',
        '"key-requests";q=300;w=60',
        '"user-requests";q=60;w=60',
        '"key-user-requests";q=30;w=60',
    ]
    admit(buckets, NOW)
    assert rate_headers.state(buckets, NOW) == ("key-user-requests", 4, 2)
    while admit(buckets, NOW) is None:
        pass
    assert rate_headers.state(buckets, NOW) == ("key-user-requests", 0, 2)


@pytest.mark.parametrize(
    ("limit", "policy", "state"),
    [
        (
            {"name": "creates_per_minute", "of": "account", "limit": 0.5, "remaining": 0},
            "account-creates",
            "q=0;w=60 r=0",
        ),
        ({"name": NAME, "of": "account", "limit": 3000, "remaining": 7}, "account-requests", "q=3000;w=60 r=7"),
        (
            {"name": "seconds_per_month", "of": "key", "limit": 99.5, "remaining": 1.5},
            "key-seconds-per-month",
            "q=99 r=1",
        ),
        (
            {
                "name": "budget_usd_per_day",
                "of": "user",
                "limit": "1000000000.000000",
                "limit_microusd": 10**15,
                "remaining": "0.000001",
                "remaining_microusd": 1,
            },
            "user-budget-usd-per-day",
            "q=999999999999999;w=86400 r=1",
        ),
    ],
)
def test_refusal_headers_name_the_limit(limit, policy, state):
    """Whole numbers only, of 15 digits at most (RFC 9651), and a window where it is one of fixed length."""
    quota, left = state.split(" ")
    assert rate_headers.refusing(limit, 9) == (f'"{policy}";{quota}', f'"{policy}";{left};t=9', 9)


@pytest.mark.parametrize("of", ["team", "key", "user", "address"])
def test_header_names_identify_the_limit(of):
    """A browser token's limit is not its key's."""
    assert rate_headers.refusing({"name": NAME, "of": of, "limit": 6, "remaining": 0}, 9) is None


@given(st.integers(1, 10_000), st.integers(0, 50), st.floats(0, 100))
def test_remaining_requests_are_never_exceeded_within_the_window(per_minute, used, waited):
    """What `RateLimit` promises: `r` requests, and not one more before `t` seconds have passed."""
    buckets = RequestRates().buckets(caller(allowance(per_minute)))
    for _ in range(used):
        admit(buckets, NOW)
    now = NOW + waited
    _, left, seconds = rate_headers.state(buckets, now)
    assert seconds >= 1
    assert admitted(buckets, now) == left


def test_new_limit_keeps_what_was_used():
    """A reload resets nothing, and refuses nothing that the new limit allows."""
    table = RequestRates()
    assert admitted(table.buckets(caller(allowance(60, user=60)), "bob")) == 10
    raised = table.buckets(caller(allowance(120, user=600)), "bob")
    assert limits_of(raised) == [120, 600]
    assert 0 < admitted(raised, NOW + 5) <= 20
    assert table.buckets(caller()) == ()
