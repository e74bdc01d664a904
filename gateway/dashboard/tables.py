"""Tables that become a block per row on a phone: each cell has the heading of its column as `data-label`.

Every table of the console is made by the macro of `templates/tables.html`, which uses this.
"""

import re
from collections.abc import Sequence
from typing import Final

from markupsafe import Markup, escape

NUMBERS: Final = frozenset({
    "Amount", "Attempts", "Cost", "Count", "Each", "Held", "Held for runs in progress", "Hit", "Joined", "Lease left",
    "Limit", "Number", "Predictions", "Projected for the month", "Quantity", "Remaining", "Run", "Saved", "Seconds",
    "Spent", "This month", "Today", "Used",
})  # fmt: skip
"""The headings of columns that are aligned to the right."""

_SUMS: Final = ("Run", "Joined", "Hit", "Seconds", "Spent", "Saved")
OVERVIEW: Final = {
    "budgets": ("Team", "Today", "This month", "Held for runs in progress", "Projected for the month"),
    "spend_days": ("Day", "Spent", "Saved", "Seconds"),
    "sources_days": ("Day", "Run", "Joined", "Hit"),
    "recent_errors": ("Time", "Team", "Request", "Reason", "Key and user", "Count"),
    "runs": ("Started", "Prediction", "Team", "Target", "Status"),
    "targets": ("Target", "Team", *_SUMS),
    "users": ("User", "Team", "Predictions", "Spent", "Saved"),
    "teams": ("Team", *_SUMS),
    "refusals": ("Reason", "Team", "Count"),
    "refused_origins": ("Last", "Origin", "Team", "Count"),
}
"""The columns of the tables of the overview, whose rows are also rendered alone."""

# Values are escaped, so no attribute has a `>` in it.
_START: Final = re.compile(r"<(tr|td|th)\b([^>]*)>(?P<empty>–?</t)?")
_ROLES: Final = {"tr": "row", "td": "cell", "th": "rowheader"}


def labelled(rows: str, columns: Sequence[str | None]) -> Markup:
    """Return the HTML of rows with the label of each cell. A cell with `colspan` has none: it is the only one.

    A cell with nothing but a dash is marked, so that a phone need not show it.

    The roles are those that the elements have by themselves, and keep when they are shown as blocks. Raise `ValueError`
    for a row that has another number of cells than there are columns.
    """
    shown = [column for column in columns if column is not None]
    left: list[str] = []

    def start(found: re.Match[str]) -> str:
        tag, attributes = found[1], found[2]
        if tag == "tr":
            _require_none(left)
            left[:] = shown
            return f'<tr{attributes} role="row">'
        if "colspan=" in attributes:
            left.clear()
            return f'<{tag}{attributes} role="cell">'
        if not left:
            raise ValueError(f"a row has more cells than there are columns: {', '.join(shown)}")
        empty, rest = (" data-empty", found["empty"]) if found["empty"] else ("", "")
        return f'<{tag}{attributes} role="{_ROLES[tag]}" data-label="{escape(left.pop(0))}"{empty}>{rest}'

    text = _START.sub(start, rows)
    _require_none(left)
    return Markup(text)  # noqa: S704 - the rows are escaped already, and the labels above


def _require_none(left: Sequence[str]) -> None:
    if left:
        raise ValueError(f"a row has no cells for: {', '.join(left)}")
