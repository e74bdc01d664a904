"""What needs attention first: budgets that are used up or nearly, webhooks that failed, checks that fail."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

import msgspec

from gateway.domain import windows
from gateway.domain.windows import Window
from gateway.operations.rules.dashboard_view import Budget

NEARLY = 0.8
"""The part of a budget from which on it is worth a look, as in the first budget webhook."""


class Urgency(StrEnum):
    """How much an item matters. Ordered: the worst first."""

    BAD = "bad"
    WARNING = "warning"


class Concern(StrEnum):
    """What an item is about, and so which page tells more."""

    BUDGET = "budget"
    WEBHOOKS = "webhooks"
    HEALTH = "health"


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """Something that needs attention."""

    urgency: Urgency
    concern: Concern
    team: str | None = None
    window: Window | None = None
    """Of a budget."""
    part: float | None = None
    """The used part of a budget, runs in progress included; `None` for one that is only projected to be exceeded."""
    resets_at: float | None = None
    count: int = 0
    """Failed webhooks."""
    text: str = ""
    """The answer of a failed check."""


def items(
    budgets: Iterable[Budget], dead: Iterable[tuple[str, int]], failed_checks: Iterable[str], now: float
) -> tuple[Item, ...]:
    """Return what needs attention, the worst first. `dead` has teams and their numbers of failed webhooks."""
    found = [Item(urgency=Urgency.BAD, concern=Concern.HEALTH, text=text) for text in failed_checks]
    for budget in budgets:
        found += _of_budget(budget, now)
    found += [Item(urgency=Urgency.WARNING, concern=Concern.WEBHOOKS, team=team, count=count) for team, count in dead]
    order = list(Urgency)
    return tuple(sorted(found, key=lambda item: order.index(item.urgency)))


def _of_budget(budget: Budget, now: float) -> Iterator[Item]:
    is_full = False
    for window, spent, limit in (
        (Window.DAY, budget.day_spent, budget.day_limit),
        (Window.MONTH, budget.month_spent, budget.month_limit),
    ):
        if limit is None:
            continue
        part = (spent + budget.held) / limit if limit else 1.0
        if part < NEARLY:
            continue
        is_full = is_full or part >= 1
        yield Item(
            urgency=Urgency.BAD if part >= 1 else Urgency.WARNING,
            concern=Concern.BUDGET,
            team=budget.team,
            window=window,
            part=part,
            resets_at=windows.ends_at(window, now),
        )
    if budget.exceeds and not is_full:
        yield Item(urgency=Urgency.WARNING, concern=Concern.BUDGET, team=budget.team, window=Window.MONTH)
