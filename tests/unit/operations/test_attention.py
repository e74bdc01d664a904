"""What the first page of the console puts first."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import windows
from gateway.domain.windows import Window
from gateway.operations.rules.attention import Concern, Item, Urgency, items
from gateway.operations.rules.dashboard_view import Budget

NOW = 1_781_280_000.5


def budget(team: str = "red", **amounts: int | None) -> Budget:
    nothing: dict[str, int | None] = {
        "day_spent": 0, "day_limit": None, "month_spent": 0, "month_limit": None, "held": 0, "projected": 0,
    }  # fmt: skip
    return Budget(team=team, **nothing | amounts)  # type: ignore[arg-type]


def of(*budgets: Budget, dead: tuple[tuple[str, int], ...] = (), failed: tuple[str, ...] = ()) -> list[Item]:
    return list(items(budgets, dead, failed, NOW))


def test_nothing_needs_attention_without_budgets():
    assert of(budget(day_spent=10**9, month_spent=10**9)) == []


def test_used_up_budget_says_when_it_resets():
    """Amounts held for runs in progress count: no further run is admitted."""
    (item,) = of(budget(day_spent=60, held=40, day_limit=100))
    assert (item.urgency, item.concern, item.team, item.window, item.part) == (
        Urgency.BAD, Concern.BUDGET, "red", Window.DAY, 1.0,
    )  # fmt: skip
    assert item.resets_at == windows.ends_at(Window.DAY, NOW)


def test_budget_of_nothing_is_used_up():
    (item,) = of(budget(month_limit=0))
    assert item.part == 1.0


def test_budget_is_a_warning_from_four_fifths_on():
    assert of(budget(month_spent=79, month_limit=100)) == []
    (item,) = of(budget(month_spent=80, month_limit=100))
    assert (item.urgency, item.window, item.part) == (Urgency.WARNING, Window.MONTH, 0.8)


def test_budget_that_is_projected_to_be_exceeded_is_a_warning():
    (item,) = of(budget(month_spent=10, month_limit=100, projected=101))
    assert (item.urgency, item.part) == (Urgency.WARNING, None)


def test_failed_webhooks_are_listed_by_team():
    assert [(item.team, item.count) for item in of(dead=(("blue", 1), ("red", 2)))] == [("blue", 1), ("red", 2)]


def test_the_worst_comes_first():
    found = of(
        budget("a", month_spent=85, month_limit=100),
        budget("b", day_spent=100, day_limit=100),
        dead=(("a", 1),),
        failed=("Replicate did not answer in time.",),
    )
    assert [(item.urgency, item.concern) for item in found] == [
        (Urgency.BAD, Concern.HEALTH),
        (Urgency.BAD, Concern.BUDGET),
        (Urgency.WARNING, Concern.BUDGET),
        (Urgency.WARNING, Concern.WEBHOOKS),
    ]


@given(
    spent=st.integers(0, 10**12),
    held=st.integers(0, 10**12),
    limit=st.integers(1, 10**12),
    projected=st.integers(0, 10**12),
)
def test_a_budget_is_bad_exactly_if_it_is_used_up(spent: int, held: int, limit: int, projected: int):
    found = of(budget(month_spent=spent, held=held, month_limit=limit, projected=projected))
    assert any(item.urgency is Urgency.BAD for item in found) == (spent + held >= limit)
    assert len(found) <= 2
