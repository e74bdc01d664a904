"""Tables as CSV: what comes back is what was written, and no cell is a formula."""

import csv
import io
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.csv_text import write

CELLS = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=2, max_size=2)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


@given(rows=st.lists(CELLS, max_size=4))
def test_texts_come_back_and_none_begins_a_formula(rows: list[list[str]]):
    """Whatever characters a caller chooses, a reader gets them; only a dangerous beginning is quoted."""
    shown = [cell for row in read(write(["a", "b"], rows))[1:] for cell in row]
    # A carriage return would end the row for some readers.
    given_ = [cell.replace("\r\n", "\n").replace("\r", "\n") for row in rows for cell in row]
    for cell, before in zip(shown, given_, strict=True):
        assert cell in (before, f"'{before}")
        assert not cell.startswith(("=", "+", "@", "\t", "\r"))
        assert not cell.startswith("-") or cell == "-"


def test_numbers_may_be_negative_and_nothing_is_empty():
    """An amount that was taken back is no formula; an absent value is an empty cell."""
    assert write(["a", "b", "c"], [(-1, Decimal("-2.50"), None)]) == "a,b,c\n-1,-2.50,\n"
