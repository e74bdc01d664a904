"""The errors and refusals of the console's overview in words: equal errors are one row, and no refusal counts twice."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from gateway.domain.quota import LimitKind
from gateway.errors import BudgetExceeded, RateLimited
from gateway.operations.rules.dashboard_view import RecentError, Refusal

_OF_LIMITS: Final = {
    LimitKind.RATE: "Predictions per minute",
    LimitKind.CONCURRENCY: "Concurrent predictions",
    LimitKind.SECONDS: "Run time used up",
    LimitKind.DOLLARS: "Budget used up",
    LimitKind.WEBHOOKS: "Webhook queue full",
}
_BUDGETS: Final = frozenset(kind for kind in LimitKind if kind.is_budget)
_BUDGET, _RATE = BudgetExceeded.__name__, RateLimited.__name__
_OF_ROUTES: Final = {
    "gateway.tokens": "create token",
    "streams.read_files": "read file stream",
    "upstream.webhooks": "webhook of Replicate",
    "webhooks.secret": "webhook secret",
}
_PLURAL: Final = frozenset({"list", "search"})
_BULLET: Final = re.compile(r"(^|\n|(?<=response: ))- ")
_TWICE: Final = re.compile(r"(^|; )([\w.]+): (?=\2\b)")
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?")


def route_words(name: str) -> str:
    """Return what a route does: `models.predictions.create` is "create", `files.list` is "list files"."""
    if name in _OF_ROUTES:
        return _OF_ROUTES[name]
    *nouns, verb = name.removeprefix("gateway.").split(".")
    if not nouns or nouns[-1] == "predictions":
        return verb
    return f"{verb} {nouns[-1] if verb in _PLURAL else nouns[-1].removesuffix('s')}"


def plain_reason(detail: str) -> str:
    """Return the text of an error as a sentence: without list marks, and no field named twice."""
    lines = _BULLET.sub(r"\1", detail.strip()).split("\n")
    return _TWICE.sub(r"\1", "; ".join(line for line in map(str.strip, lines) if line))


def folded(errors: Iterable[RecentError]) -> tuple[RecentError, ...]:
    """Return errors, newest first, with equal ones as one row: the newest, with their number.

    They are equal if only numbers in their text differ: a time to wait, or an amount that was spent.
    """
    rows: dict[object, RecentError] = {}
    for error in errors:
        detail = plain_reason(error.detail)
        same = (error.team, error.what, _NUMBER.sub("", detail), error.key, error.user, error.target)
        if same in rows:
            rows[same] = replace(rows[same], count=rows[same].count + 1)
        else:
            rows[same] = replace(error, detail=detail)
    return tuple(rows.values())


def refusals(by_limit: Mapping[tuple[str, str], int], by_error: Mapping[str, int]) -> Sequence[Refusal]:
    """Return the refusals by reason, the most frequent first. `by_error` counts those of `by_limit` again."""
    rows = [Refusal(team=team, reason=_limit_words(kind), count=count) for (team, kind), count in by_limit.items()]
    again = dict.fromkeys((_BUDGET, _RATE), 0)
    for (_, kind), count in by_limit.items():
        again[_BUDGET if kind in _BUDGETS else _RATE] += count
    for name, count in by_error.items():
        if (rest := count - again.get(name, 0)) > 0:
            rows.append(Refusal(team=None, reason=name, count=rest))
    return sorted(rows, key=lambda each: (-each.count, each.team or "", each.reason))


def _limit_words(kind: str) -> str:
    return _OF_LIMITS[LimitKind(kind)] if kind in frozenset(LimitKind) else kind
