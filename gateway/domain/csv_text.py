"""Tables as CSV, for spreadsheets."""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""Prefixes that spreadsheets treat as formulas. Callers choose the names of users."""


def write(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table. `None` is an empty cell; a text that a spreadsheet would take for a formula is neutralised."""
    return write_rows([columns]) + write_rows(rows)


def write_rows(rows: Iterable[Sequence[object]]) -> str:
    """Return rows of a table without its heading, as `write` does."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([_cell(each) for each in row] for row in rows)
    return out.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, str):
        # A carriage return alone would end the row for some readers: the writer does not quote it.
        text = value.replace("\r\n", "\n").replace("\r", "\n")
        return f"'{text}" if value.startswith(_FORMULA) and value != "-" else text
    return "" if value is None else str(value)
