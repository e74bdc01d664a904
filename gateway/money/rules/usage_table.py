"""Usage as a table: the rows of a report (`reports.usage`) as cells, for the command line and for CSV."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from gateway.domain import csv_text


def names(by: str) -> list[str]:
    """Return the columns that name a row."""
    return ["team", *{"team": (), "key": ("key", "key_name")}.get(by, ("value" if by.startswith("tag:") else by,))]


def columns(by: str) -> list[str]:
    """Return all columns."""
    return [*names(by), "run", "joined", "hit", "seconds", "spend_usd", "saved_usd"]


def cells(row: Mapping[str, Any], by: str) -> list[str]:
    """Return the cells of a row."""
    counts = row["predictions"]
    return [
        *("-" if row.get(name) is None else str(row[name]) for name in names(by)),
        str(counts["run"]),
        str(counts["joined"]),
        str(counts["hit"]),
        f"{row['seconds']:.3f}",
        row["spend_usd"],
        row["saved_usd"],
    ]


def csv(report: Mapping[str, Any], by: str) -> str:
    """Return a report as CSV."""
    return csv_text.write(columns(by), (_plain(cells(row, by), len(names(by))) for row in report["rows"]))


def _plain(row: Sequence[str], words: int) -> list[object]:
    # An amount can be negative, and is no formula.
    return [*row[:words], *map(Decimal, row[words:])]
