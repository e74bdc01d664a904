"""The overview's errors and refusals in words: nothing is counted twice, and equal errors are one row."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.domain.quota import LimitKind
from gateway.http.routes import OWN, PUBLIC
from gateway.operations.rules.dashboard_view import RecentError
from gateway.operations.rules.overview_rows import folded, plain_reason, refusals, route_words

ERROR = RecentError(at=9.0, team="red", what="create: 429", detail="It resets in ~9s.", key="web", user="ann")
COUNTS = st.integers(0, 50)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("predictions.create", "create"),
        ("models.predictions.create", "create"),
        ("files.list", "list files"),
        ("files.delete", "delete file"),
        ("gateway.keys.rotate", "rotate key"),
        ("gateway.usage", "usage"),
        ("models.search", "search models"),
    ],
)
def test_routes_are_called_by_what_they_do(name: str, expected: str):
    assert route_words(name) == expected


def test_every_route_has_words():
    """Without dots, which no word has."""
    assert [
        route.name for route in (*OWN, *PUBLIC) if "." in route_words(route.name) or not route_words(route.name)
    ] == []


@pytest.mark.parametrize(
    ("detail", "expected"),
    [
        ("- origins: 'https://x' is not listed\n", "origins: 'https://x' is not listed"),
        ("- ttl_seconds: ttl_seconds must be above 0\n", "ttl_seconds must be above 0"),
        ("- a: wrong\n- b: b is wrong\n", "a: wrong; b is wrong"),
        ("Replicate's own response: - input.a: wrong", "Replicate's own response: input.a: wrong"),
        ("Over budget - twice", "Over budget - twice"),
        ("", ""),
    ],
)  # fmt: skip
def test_reasons_have_no_marks_of_lists(detail: str, expected: str):
    assert plain_reason(detail) == expected


def test_equal_errors_are_one_row_with_their_number():
    """The newest stands for all whose text differs in numbers only; another user, key or model is another row."""
    others = [replace(ERROR, user="bob"), replace(ERROR, key="app"), replace(ERROR, target="acme/toy")]
    rows = folded([ERROR, *others, replace(ERROR, at=8.0, detail="It resets in ~10s."), replace(ERROR, at=7.0)])
    assert [each.count for each in rows] == [3, 1, 1, 1]
    assert (rows[0].at, rows[0].detail) == (9.0, "It resets in ~9s.")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x 1", "x 2", "y"])), max_size=20))
def test_no_error_is_lost_by_folding(pairs: list[tuple[str, str]]):
    errors = [replace(ERROR, team=team, detail=detail) for team, detail in pairs]
    rows = folded(errors)
    assert sum(each.count for each in rows) == len(errors)
    assert [each.at for each in rows] == sorted((each.at for each in rows), reverse=True)


@given(
    st.dictionaries(st.tuples(st.sampled_from("ab"), st.sampled_from(LimitKind)), st.integers(1, 9)),
    COUNTS, COUNTS, COUNTS,
)  # fmt: skip
def test_each_refusal_is_counted_once(
    by_limit: dict[tuple[str, str], int], more_rates: int, more_budgets: int, unknown: int
):
    """The sum over all rows is the number of refused requests."""
    counted = Counter({"NotFound": unknown, "RateLimited": more_rates, "BudgetExceeded": more_budgets})
    for (_, kind), count in by_limit.items():
        counted["BudgetExceeded" if LimitKind(kind).is_budget else "RateLimited"] += count
    rows = refusals(by_limit, counted)
    assert sum(each.count for each in rows) == counted.total()
    assert all(each.count > 0 for each in rows)
    assert len({(each.team, each.reason) for each in rows}) == len(rows)
