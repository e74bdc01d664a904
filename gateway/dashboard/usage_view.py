"""The rows of the console's page Usage, from a usage report (`gateway.money.rules.reports`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.domain import windows
from gateway.domain.ledger import By

_NO_MODEL = "corrections"
_NO_USER = "no user"
_NO_KEY = "no key"
_NO_TAG = "no tag"


def rows(report: Mapping[str, Any], by: By) -> Sequence[Mapping[str, Any]]:
    """Return the rows with their names: days newest first, others by cost, then by number of predictions."""
    named = [{"name": _name(row, by), **row} for row in report["rows"]]
    if by is By.DAY:
        return sorted(named, key=lambda row: (row["name"], row["team"]), reverse=True)
    return sorted(
        named,
        key=lambda row: (-row["spend_microusd"], -sum(row["predictions"].values()), row["team"], row["name"]),
    )


def _name(row: Mapping[str, Any], by: By) -> str:
    match by:
        case By.TEAM:
            name = row["team"]
        case By.DAY:
            name = row["day"]
        case By.KEY:
            name = row["key_name"] or row["key"] or _NO_KEY
        case By.MODEL:
            name = row["model"] or _NO_MODEL
        case By.USER:
            name = row["user"] or _NO_USER
        case By.TAG:
            name = row["value"] or _NO_TAG
    return str(name)


def spent_by_day(report: Mapping[str, Any], since: int, until: int) -> Sequence[tuple[int, int]]:
    """Return each day with the micro-dollars spent, days without usage included, from a report by day."""
    spent = dict.fromkeys(range(since, until + 1), 0)
    for row in report["rows"]:
        spent[windows.parse_day(row["day"])] += row["spend_microusd"]
    return list(spent.items())
