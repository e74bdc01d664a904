"""Usage as a table: the rows of a report (`reports.usage`) as cells, for the command line and for CSV."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from gateway.domain import csv_text

_TAG: Final = "tag:"
_AMOUNTS: Final = ("run", "joined", "hit", "seconds", "spend_usd", "saved_usd")


def names(by: str) -> list[str]:
    """Return the columns that name a row."""
    return ["team", *{"team": (), "key": ("key", "key_name")}.get(by, ("value" if by.startswith(_TAG) else by,))]


def columns(by: str) -> list[str]:
    """Return the headings of all columns. Values of a tag are below the tag's name."""
    headings = [*names(by), *_AMOUNTS]
    if by.startswith(_TAG):
        tag = by.removeprefix(_TAG)
        headings[1] = by if tag in headings else tag
    return headings


def cells(row: Mapping[str, Any], by: str, *, absent: str = "-") -> list[str]:
    """Return the cells of a row; `absent` stands for what has no name, such as no user."""
    counts = row["predictions"]
    return [
        *(absent if row.get(name) is None else str(row[name]) for name in names(by)),
        str(counts["run"]),
        str(counts["joined"]),
        str(counts["hit"]),
        f"{row['seconds']:.3f}",
        row["spend_usd"],
        row["saved_usd"],
    ]


def csv(report: Mapping[str, Any], by: str) -> str:
    """Return a report as CSV. What has no name is empty: a user can be called `-`."""
    rows = (_plain(cells(row, by, absent=""), len(names(by))) for row in report["rows"])
    return csv_text.write(columns(by), rows)


def _plain(row: Sequence[str], words: int) -> list[object]:
    # An amount can be negative, and is no formula.
    return [*row[:words], *map(Decimal, row[words:])]
