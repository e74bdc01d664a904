"""What the console shows, as values."""

from gateway.domain import windows
from gateway.domain.ledger import Usage
from gateway.domain.limits import Limits
from gateway.domain.quota import Counters
from gateway.operations.rules import dashboard_view
from gateway.operations.rules.dashboard_view import Budget, DayUsage

NOW = 1_764_000_000.0
TODAY = windows.day_of(NOW)


def row(team: str, what: str | int | None = None, **sums: int) -> Usage:
    return Usage(team=team, what=what, **sums)


def test_days_are_summed_over_teams_without_gaps():
    """A chart of a month has a place for each of its days; days before the month are for the projection alone."""
    rows = [row("red", 10, runs=2, microusd=7), row("blue", 10, hits=1), row("red", 12, microusd=-1), row("red", 8)]
    assert dashboard_view.by_days(rows, 10, 12) == (
        DayUsage(10, row("", runs=2, hits=1, microusd=7), (("red", 7),)),
        DayUsage(11, row("")),
        DayUsage(12, row("", microusd=-1), (("red", -1),)),
    )


def test_most_expensive_rows_come_first():
    rows = [row("red", "b", runs=9), row("red", "a", microusd=5), row("blue", "c", hits=10), row("blue", "d", runs=9)]
    assert [each.what for each in dashboard_view.by_cost(rows)] == ["a", "c", "d", "b"]


def test_share_of_nothing_is_unknown():
    assert dashboard_view.share(0, 0) is None
    assert dashboard_view.share(1, 4) == 0.25
    assert dashboard_view.predictions(row("red", runs=1, joined=2, hits=3)) == 6


def test_insufficient_budget_is_marked():
    meter = Counters(held_microusd=3, day_microusd=100, month_microusd=900)
    limits = Limits(microusd_per_day=1_000, microusd_per_month=1_000)
    found = dashboard_view.budget("red", limits, meter, {TODAY: 100}, NOW)
    assert found == Budget(
        team="red",
        day_spent=100,
        day_limit=1_000,
        month_spent=900,
        month_limit=1_000,
        held=3,
        projected=found.projected,
    )
    assert found.projected > 1_000
    assert found.exceeds
    assert not dashboard_view.budget("red", Limits(), meter, {TODAY: 100}, NOW).exceeds
