"""Tables that become a block per row on a phone: every cell has the label of its column."""

import re
from html.parser import HTMLParser
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup, escape

from gateway.dashboard.assets import PAGE
from gateway.dashboard.tables import NUMBERS, OVERVIEW, labelled

# Parsers replace NUL and other control characters.
TEXTS = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=20)


class Cells(HTMLParser):
    """The label and the text of each cell, by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[tuple[str | None, str, bool]]] = []
        self.feed(str(text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "tr":
            assert given["role"] == "row"
            self.rows.append([])
        elif tag in ("td", "th"):
            assert given["role"] == ("cell" if tag == "td" else "rowheader")
            self.rows[-1].append((given.get("data-label"), "", "data-empty" in given))

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            label, text, is_empty = self.rows[-1][-1]
            self.rows[-1][-1] = (label, text + data, is_empty)


@given(columns=st.lists(TEXTS, min_size=1, max_size=5), values=st.data())
def test_each_cell_has_the_label_of_its_column_and_keeps_its_text(columns: list[str], values: st.DataObject):
    """Whatever the text has in it: it is escaped."""
    rows = values.draw(st.lists(st.lists(TEXTS, min_size=len(columns), max_size=len(columns)), max_size=3))
    html = "".join(
        "<tr>" + "".join(f'<td title="{escape(text)}">{escape(text)}</td>' for text in row) + "</tr>\n" for row in rows
    )
    found = Cells(labelled(html, columns)).rows
    assert [[label for label, _, _ in row] for row in found] == [columns] * len(rows)
    assert [[text.strip() for _, text, _ in row] for row in found] == [[text.strip() for text in row] for row in rows]


def test_hidden_columns_and_empty_cells_are_marked():
    html = labelled('<tr><th scope="row">a</th><td>–</td><td></td><td>– or</td></tr>', ["A", None, "B", "C", "D"])
    assert isinstance(html, Markup)
    assert Cells(html).rows == [[("A", "a", False), ("B", "–", True), ("C", "", True), ("D", "– or", False)]]


def test_row_that_spans_all_columns_has_no_label():
    (row,) = Cells(labelled('<tr><td colspan="2">None.</td></tr>', ["A", "B"])).rows
    assert row == [(None, "None.", False)]


@pytest.mark.parametrize("cells", ["<td>1</td>", "<td>1</td><td>2</td><td>3</td>"])
def test_row_with_another_number_of_cells_is_refused(cells: str):
    """A mistake in a template, which tests of the pages find."""
    with pytest.raises(ValueError, match="cells"):
        labelled(f"<tr>{cells}</tr>", ["A", "B"])


def test_every_table_is_made_by_the_macro():
    """No page can have a table that does not fit a phone."""
    templates = (resources.files(PAGE) / "templates").iterdir()
    assert [each.name for each in templates if re.search("<table|<tbody", each.read_text("utf-8"))] == ["tables.html"]


def test_numbers_of_the_overview_are_aligned():
    """A heading that is a number somewhere is one everywhere."""
    assert {name for columns in OVERVIEW.values() for name in columns if name in NUMBERS} >= {"Spent", "Count", "Run"}
