"""Pages of a list that is ordered by time and id, newest first, with links in both directions.

The bounds of the list and of the page are merged into one pair of bounds, so the cost of a page depends only on its
number of items, not on its position in the list.
"""

import math
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from gateway.domain.cursors import Cursor
from gateway.store.sql.database import Database
from gateway.store.sql.rows import Row

T = TypeVar("T")
Place = tuple[float, str]


class Statements(NamedTuple):
    """The statements that read a list: towards older items, towards newer items, and whether there are any."""

    older: str
    newer: str
    any: str

    @classmethod
    def named(cls, name: str) -> "Statements":
        """Return the three statements of a list."""
        return cls(f"{name}_older", f"{name}_newer", f"{name}_any")


class Bounds(NamedTuple):
    """The range between two places, both exclusive. The empty id sorts before all others."""

    low: Place = (-math.inf, "")
    high: Place = (math.inf, "")

    @classmethod
    def between(cls, after: float | None, before: float | None) -> "Bounds":
        """Bound by time: `after` inclusive, `before` exclusive."""
        return cls((-math.inf if after is None else after, ""), (math.inf if before is None else before, ""))


class Stretch(NamedTuple, Generic[T]):
    """One page of a list, and whether there are more items before and after it."""

    items: list[T]
    has_newer: bool
    has_older: bool


class Listing(Generic[T]):
    """One list. `scope` holds the statements' parameters, `item` converts a row, `place` returns an item's place,
    `left_out` the bytes that an item was read without.
    """

    def __init__(
        self,
        statements: Statements,
        scope: dict[str, Any],
        bounds: Bounds,
        item: Callable[[Row], T],
        place: Callable[[T], Place],
        left_out: Callable[[T], int] = lambda _: 0,
    ) -> None:
        self._statements = statements
        self._scope = scope
        self._bounds = bounds
        self._item = item
        self._place = place
        self._left_out = left_out

    def stretch(self, db: Database, limit: int, position: Cursor | None, max_bytes: int | None = None) -> Stretch[T]:
        """Read a page of at most `limit` items that begins after `position`.

        It ends before the item with which its rows would pass `max_bytes`, but has one item at least.
        """
        backward = position is not None and position.backward
        within = self._bounds
        if position is not None:
            place = (position.at, position.id)
            within = (
                within._replace(low=max(within.low, place))
                if backward
                else within._replace(high=min(within.high, place))
            )
        statement = self._statements.newer if backward else self._statements.older
        found = db.execute(statement, self._parameters(within) | {"limit": limit + 1})
        items: list[T] = []
        size, is_more_ahead = 0, False
        for row in found:
            item = self._item(row)
            size += 0 if max_bytes is None else _size(row) + self._left_out(item)
            if len(items) == limit or (items and max_bytes is not None and size > max_bytes):
                is_more_ahead = True
                break
            items.append(item)
        found.close()
        if backward:
            items.reverse()
            return Stretch(items, is_more_ahead, self._has_any(db, items, -1))
        is_more_behind = position is not None and self._has_any(db, items, 0)
        # Without a position the page begins with the newest item, so there are no newer ones.
        return Stretch(items, is_more_behind, is_more_ahead)

    def _has_any(self, db: Database, items: list[T], end: int) -> bool:
        """Return whether the list has items beyond the first (`end` 0) or last (`end` -1) of `items`.

        For an empty page, return whether the list has any items.
        """
        within = self._bounds
        if items and end == 0:
            within = within._replace(low=max(within.low, self._place(items[0])))
        elif items:
            within = within._replace(high=min(within.high, self._place(items[-1])))
        return db.execute(self._statements.any, self._parameters(within)).fetchone() is not None

    def _parameters(self, bounds: Bounds) -> dict[str, Any]:
        (low_at, low_id), (high_at, high_id) = bounds
        return self._scope | {"low_at": low_at, "low_id": low_id, "high_at": high_at, "high_id": high_id}


def _size(row: Row) -> int:
    return sum(len(cell) for cell in row if isinstance(cell, bytes | str))
