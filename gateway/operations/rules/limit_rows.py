"""The rows of the console's page Limits: what a team or key is limited to, with what is used where it is counted."""

from collections.abc import Iterable, Iterator

from gateway.domain.limits import Allowance, Limits, limits_by_name

_COUNTED = frozenset({
    "predictions_per_minute", "concurrent_predictions", "seconds_per_day", "seconds_per_month", "budget_usd_per_day",
    "budget_usd_per_month",
})  # fmt: skip
"""Limits of a team or key itself whose use is in the store: they have rows of their own."""


def stated(allowance: Allowance, of: str) -> list[dict[str, object]]:
    """Return the limits whose use the store does not have as one number: request rates, and those of each user."""
    suffix = "" if of == "team" else f" of {of}"
    return [
        *_rows(allowance.own, of, except_for=_COUNTED),
        *_rows(allowance.per_user, f"each user{suffix}"),
        *_rows(allowance.per_address, f"each address{suffix}"),
    ]


def _rows(limits: Limits, of: str, except_for: Iterable[str] = ()) -> Iterator[dict[str, object]]:
    for name, value in limits_by_name(limits).items():
        if name not in except_for:
            row: dict[str, object] = {"name": name, "of": of, "limit": value}
            if name.startswith("budget_usd"):
                row["limit_microusd"] = getattr(limits, name.replace("budget_usd", "microusd"))
            yield row
