"""Pages as Django REST's cursor pagination makes them: opaque cursors, absolute links, both directions."""

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
    """A place in a list: the stamp of the item next to it, and the direction to read in."""

    position: int
    reverse: bool = False

    def encode(self) -> str:
        """Write it as the API does: base64 of a query string, `p` the place and `r=1` for backwards."""
        place = database_time(self.position).replace("T", " ").replace("Z", "+00:00")
        text = f"r=1&p={quote_plus(place)}" if self.reverse else f"p={quote_plus(place)}"
        return base64.b64encode(text.encode()).decode()


def decode_cursor(text: str) -> Cursor:
    """Read a cursor; ValueError if it is none of ours."""
    try:
        fields = parse_qs(base64.b64decode(text.encode("ascii"), validate=True).decode("ascii"))
        position = parse_time(fields["p"][0].replace(" ", "T", 1))
    except (KeyError, UnicodeError, binascii.Error, ValueError, OverflowError) as error:
        raise ValueError("Invalid cursor") from error
    return Cursor(position, reverse=fields.get("r") == ["1"])


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page, and the cursors of its neighbours."""

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
    """Take one page of `items`, which are sorted by `key`, rising, no two alike; `keep` leaves some out.

    Items that come or go between two pages move nothing: a cursor names a place, not a number.
    """
    reverse = cursor is not None and cursor.reverse
    rising = descending == reverse  # whether this page is read upwards
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
    """Write a neighbour's absolute link: the request's own query with the other cursor."""
    if cursor is None:
        return None
    kept = {name: value for name, value in query.items() if name != "cursor"}
    return f"{base}?{urlencode({'cursor': cursor.encode(), **kept}, quote_via=quote)}"
