"""Cursor pagination like Django REST framework: opaque cursors, absolute links, both directions."""

import base64
import binascii
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar
from urllib.parse import parse_qs, quote, quote_plus, urlencode

import msgspec

from gateway.simulator.times import database_time, parse_time

T = TypeVar("T")


class Cursor(msgspec.Struct, frozen=True):
    """A position in a list: the timestamp of the adjacent item, and the direction."""

    position: int
    reverse: bool = False

    def encode(self) -> str:
        """Encode it like the API: base64 of a query string with `p` (position) and `r=1` (backwards)."""
        place = database_time(self.position).replace("T", " ").replace("Z", "+00:00")
        text = f"r=1&p={quote_plus(place)}" if self.reverse else f"p={quote_plus(place)}"
        return base64.b64encode(text.encode()).decode()


def decode_cursor(text: str) -> Cursor:
    """Decode a cursor. Raise `ValueError` if it is invalid."""
    try:
        fields = parse_qs(base64.b64decode(text.encode("ascii"), validate=True).decode("ascii"))
        position = parse_time(fields["p"][0].replace(" ", "T", 1))
    except (KeyError, UnicodeError, binascii.Error, ValueError, OverflowError) as error:
        raise ValueError("Invalid cursor") from error
    return Cursor(position, reverse=fields.get("r") == ["1"])


class Page(msgspec.Struct, Generic[T], frozen=True):
    """A page, and the cursors of its neighbors."""

    results: list[T]
    next: Cursor | None
    previous: Cursor | None


def take_page(
    items: Sequence[T],
    key: Callable[[T], int],
    size: int,
    cursor: Cursor | None,
    *,
    descending: bool = True,
    keep: Callable[[T], bool] | None = None,
) -> Page[T]:
    """Return a page of `items`, which are sorted by unique ascending `key`; `keep` filters them.

    A cursor is a position and not an offset, so items added or removed between two requests shift nothing.
    """
    reverse = cursor is not None and cursor.reverse
    rising = descending == reverse  # read this page in ascending order
    if cursor is None:
        start = 0 if rising else len(items)
    elif rising:
        start = bisect_right(items, cursor.position, key=key)
    else:
        start = bisect_left(items, cursor.position, key=key)
    order = range(start, len(items)) if rising else range(start - 1, -1, -1)
    found: list[T] = []
    more = False
    for index in order:
        if keep is not None and not keep(items[index]):
            continue
        if len(found) == size:
            more = True
            break
        found.append(items[index])
    if reverse:
        found.reverse()
    ahead, behind = (cursor is not None, more) if reverse else (more, cursor is not None)
    return Page(
        found,
        Cursor(key(found[-1])) if ahead and found else None,
        Cursor(key(found[0]), reverse=True) if behind and found else None,
    )


def link(base: str, query: dict[str, str], cursor: Cursor | None) -> str | None:
    """Return the absolute link of a neighbor: the query of the request with another cursor."""
    if cursor is None:
        return None
    kept = {name: value for name, value in query.items() if name != "cursor"}
    return f"{base}?{urlencode({'cursor': cursor.encode(), **kept}, quote_via=quote)}"
