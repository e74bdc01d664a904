"""Which limits a create must pass, and what is said of the one that is in the way."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import quota
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import Counters, Granted, LimitKind, Refused, ReservationRequest, RunLimits
from gateway.domain.rates import Rate

NOW = 1_764_000_000.0
"""2025-11-24, 16:00 UTC."""
MIDNIGHT, MONTH_END = 1_764_028_800.0, 1_764_547_200.0


def of(scope: str = "team/red", **limits: Any) -> RunLimits:
    return RunLimits(of=SubjectKind(scope.partition("/")[0]), scope=scope, **limits)


def decide(meter: Counters, *, microusd: int = 10, milliseconds: int = 10, **limits: Any) -> Granted | Refused:
    return quota.decide({"team/red": meter}, ReservationRequest(microusd, milliseconds, (of(**limits),)), NOW)


def refused(decision: Granted | Refused) -> Refused:
    assert isinstance(decision, Refused)
    return decision


def test_unlimited_team_is_granted_everything() -> None:
    assert decide(Counters(open=10**6, day_microusd=10**12)) == Granted({})


@pytest.mark.parametrize(
    ("name", "limits", "meter", "resets_at"),
    [
        ("budget_usd_per_day", {"microusd_per_day": 100}, Counters(day_microusd=60, held_microusd=31), MIDNIGHT),
        ("budget_usd_per_month", {"microusd_per_month": 100}, Counters(month_microusd=60, held_microusd=31), MONTH_END),
        (
            "seconds_per_day",
            {"milliseconds_per_day": 100},
            Counters(day_milliseconds=60, held_milliseconds=31),
            MIDNIGHT,
        ),
        (
            "seconds_per_month",
            {"milliseconds_per_month": 100},
            Counters(month_milliseconds=60, held_milliseconds=31),
            MONTH_END,
        ),
    ],
)
def test_budget_counts_spent_reserved_and_requested_money(
    name: str, limits: dict[str, int], meter: Counters, resets_at: float
) -> None:
    """Of a hundred, sixty spent and thirty-one reserved: ten more are too many, and the refusal says whose and
    until when.
    """
    standing = refused(decide(meter, **limits)).status
    assert (standing.name, standing.of, standing.scope) == (name, SubjectKind.TEAM, "team/red")
    assert (standing.limit, standing.used, standing.held, standing.remaining) == (100, 60, 31, 9)
    assert standing.resets_at == resets_at
    assert standing.kind.is_budget
    assert isinstance(decide(meter, microusd=9, milliseconds=9, **limits), Granted)


def test_spent_money_returns_with_the_window_and_reserved_with_an_end() -> None:
    spent = refused(decide(Counters(day_microusd=95), microusd_per_day=100))
    assert spent.retry_after == MIDNIGHT - NOW
    held = refused(decide(Counters(held_microusd=95), microusd_per_day=100))
    assert held.retry_after == quota.CONCURRENCY_RETRY_SECONDS
    assert held.status.resets_at == MIDNIGHT


def test_estimate_above_a_whole_budget_never_passes() -> None:
    """Not at the end of the window either. The smallest of such budgets is named, whatever else is exceeded."""
    both = {"microusd_per_day": 20, "microusd_per_month": 50}
    for meter in (Counters(), Counters(day_microusd=20, month_microusd=50), Counters(held_microusd=50)):
        never = refused(decide(meter, microusd=51, milliseconds=10, **both))
        assert (never.status.name, never.retry_after) == ("budget_usd_per_day", quota.NEVER)
        assert refused(decide(meter, microusd=21, **both)).retry_after == quota.NEVER
    assert refused(decide(Counters(day_microusd=1), microusd=20, **both)).retry_after < quota.NEVER
    never = refused(decide(Counters(), milliseconds=11, milliseconds_per_day=10, microusd_per_day=10, microusd=10))
    assert (never.status.name, never.retry_after) == ("seconds_per_day", quota.NEVER)


def test_free_run_passes_a_spent_budget() -> None:
    assert isinstance(decide(Counters(day_microusd=200), microusd=0, microusd_per_day=100), Granted)


def test_runs_in_progress_fill_the_places() -> None:
    assert isinstance(decide(Counters(open=1), concurrent=2), Granted)
    answer = refused(decide(Counters(open=2), concurrent=2))
    assert answer.status == quota.LimitStatus(
        name="concurrent_predictions",
        of=SubjectKind.TEAM,
        scope="team/red",
        kind=LimitKind.CONCURRENCY,
        limit=2,
        used=2,
        held=0,
        remaining=0,
        resets_at=None,
    )
    assert answer.retry_after == quota.CONCURRENCY_RETRY_SECONDS


def test_rate_is_a_token_bucket() -> None:
    """Six a minute, two at once: the third must wait ten seconds."""
    rate, meter = Rate.of(6, 2), Counters()
    for _ in range(2):
        granted = decide(meter, predictions=rate)
        assert isinstance(granted, Granted)
        meter = Counters(full_at=granted.full_at["team/red"])
    answer = refused(decide(meter, predictions=rate))
    assert answer.retry_after == 10
    assert (answer.status.used, answer.status.remaining, answer.status.resets_at) == (2, 0, NOW + 20)


def test_clock_error_does_not_close_a_bucket_for_good() -> None:
    """The clock was a year ahead for a moment: a bucket is never emptier than empty."""
    answer = refused(decide(Counters(full_at=NOW + 3e7), predictions=Rate.of(6, 2)))
    assert answer.retry_after == 10


def test_longest_wait_is_named() -> None:
    meter = Counters(open=9, day_microusd=99, month_microusd=99, full_at=NOW + 10)
    limits = {"concurrent": 1, "predictions": Rate.of(1, 1)}
    assert refused(decide(meter, **limits)).status.name == "predictions_per_minute"
    limits["microusd_per_day"] = 100
    assert refused(decide(meter, **limits)).status.name == "budget_usd_per_day"
    limits["microusd_per_month"] = 100
    assert refused(decide(meter, **limits)).status.name == "budget_usd_per_month"


def test_reserved_budget_is_reported_before_a_rate() -> None:
    """Waiting for the rate would end in the budget's refusal."""
    meter = Counters(held_microusd=99, full_at=NOW + 60)
    assert refused(decide(meter, predictions=Rate.of(1, 1), microusd_per_day=100)).status.kind is LimitKind.DOLLARS


def test_all_limits_are_checked_before_any_is_taken() -> None:
    meters = {"team/red": Counters(), "key/k": Counters(open=1)}
    demand = ReservationRequest(
        1, 1, (of(predictions=Rate.of(1, 1)), of("key/k", concurrent=1), of("user/team red: u", concurrent=1))
    )
    assert refused(quota.decide(meters, demand, NOW)).status.of is SubjectKind.KEY
    meters["key/k"] = Counters()
    assert quota.decide(meters, demand, NOW) == Granted({"team/red": NOW + 60})


def test_standings_list_each_limit_that_is_set() -> None:
    allowances = [of(concurrent=3, microusd_per_day=50), of("user/team red: u", milliseconds_per_month=7)]
    found = quota.statuses(allowances, {"team/red": Counters(open=1, held_microusd=60)}, NOW)
    assert [(each.of, each.name, each.used, each.held, each.remaining) for each in found] == [
        (SubjectKind.TEAM, "concurrent_predictions", 1, 0, 2),
        (SubjectKind.TEAM, "budget_usd_per_day", 0, 60, 0),
        (SubjectKind.USER, "seconds_per_month", 0, 0, 7),
    ]


def test_usage_is_counted_for_team_key_and_user() -> None:
    assert quota.scopes_of("red", "red/web", "ann") == ("team/red", "key/red/web", "user/team red: ann")
    assert quota.scopes_of("red") == ("team/red",)
    assert quota.scopes_of("red", tagged='{"feature":"x","project":"a:b"}') == (
        "team/red",
        "tag/team red: feature=x",
        "tag/team red: project=a:b",
    )
    demand = ReservationRequest(1, 1, (of(), of("key/red/web#token")))
    assert demand.scopes("red", "red/web", None) == ("team/red", "key/red/web", "key/red/web#token")


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 80)), max_size=30),
    st.integers(1, 200),
)
def test_budget_is_overspent_only_by_errors_of_estimates(runs: list[tuple[int, int]], limit: int) -> None:
    """Runs are admitted one after the other, all in progress at once, and then cost what they cost."""
    held, admitted = 0, []
    for estimate, actual in runs:
        demand = ReservationRequest(estimate, 0, (of(microusd_per_day=limit),))
        if isinstance(quota.decide({"team/red": Counters(held_microusd=held)}, demand, NOW), Granted):
            held += estimate
            admitted.append((estimate, actual))
    assert held <= limit
    spent = sum(actual for _, actual in admitted)
    assert spent <= limit + sum(max(0, actual - estimate) for estimate, actual in admitted)


@pytest.mark.parametrize(("seconds", "said"), [(0.001, 1), (1, 1), (1.001, 2), (59.5, 60)])
def test_retry_after_is_whole_seconds_and_never_too_early(seconds: float, said: int) -> None:
    assert quota.seconds_to_wait(seconds) == said
