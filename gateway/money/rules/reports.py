"""Usage in the form that the API and the command line show (docs/architecture.md, Operations)."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from gateway.domain import money, windows
from gateway.domain.ledger import By, Grouping, Usage


def usage(
    rows: Iterable[Usage],
    total: Usage,
    grouping: Grouping,
    since: int,
    until: int,
    *,
    key_names: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, object]:
    """Return a usage report. Amounts are given twice: in dollars as strings, and in micro-dollars as integers.

    `key_names` has the names of issued keys by id. The id of a key of the config contains its name.
    """
    return {
        "from": windows.text_of(since),
        "to": windows.text_of(until),
        "by": str(grouping),
        "rows": [{"team": row.team, **_what(row, grouping.by, key_names), **_sums(row)} for row in rows],
        "total": _sums(total),
    }


def total_of(rows: Iterable[Usage]) -> Usage:
    """Return the sum of the rows."""
    found = list(rows)
    return Usage(
        runs=sum(row.runs for row in found),
        joined=sum(row.joined for row in found),
        hits=sum(row.hits for row in found),
        milliseconds=sum(row.milliseconds for row in found),
        microusd=sum(row.microusd for row in found),
        saved_microusd=sum(row.saved_microusd for row in found),
    )


def _what(row: Usage, by: By, key_names: Mapping[str, str]) -> dict[str, object]:
    if by is By.TEAM:
        return {}
    if by is By.DAY:
        assert isinstance(row.what, int)
        return {"day": windows.text_of(row.what)}
    if by is By.KEY:
        key_id = str(row.what or "")
        return {"key": key_id or None, "key_name": key_names.get(key_id) or key_id.partition("/")[2] or None}
    if by is By.TAG:
        # `None`: no value of this tag.
        return {"value": row.what or None}
    # `None`: corrections have no key, model or user, and a request need not name a user.
    return {str(by): row.what or None}


def _sums(row: Usage) -> dict[str, object]:
    return {
        "predictions": {"run": row.runs, "joined": row.joined, "hit": row.hits},
        "seconds": row.milliseconds / money.MILLISECONDS_PER_SECOND,
        "spend_usd": money.usd(row.microusd),
        "spend_microusd": row.microusd,
        "saved_usd": money.usd(row.saved_microusd),
        "saved_microusd": row.saved_microusd,
    }
