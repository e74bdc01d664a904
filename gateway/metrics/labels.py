"""Labels: which values a metric's label may have. Every one has a bound, so the number of series has one too.

A label never holds an id, a URL or free text. A value that is not on its list, or for which there is no room, counts
as `other`, and is itself counted.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

OTHER: Final = "other"
_LONGEST = 200
"""Characters; names come from callers."""


class Label(msgspec.Struct, frozen=True, eq=False):
    """A label and what it may hold.

    `values` are known from the start. `given` names further ones that the gateway knows when it starts: its teams, the
    routes that it serves, the targets that the config names. `learns` says how many may come beside `values`, first
    come, first named; what is given comes first of all.
    """

    name: str
    values: tuple[str, ...] = ()
    given: str | None = None
    learns: int = 0
    words: str = ""

    @property
    def is_open(self) -> bool:
        """Whether values that are not known from the start may come."""
        return self.learns > 0


def closed(name: str, *values: str) -> Label:
    """Describe a label with these values and no others."""
    return Label(name, values)


class Domain:
    """The values that a label has by now."""

    def __init__(self, label: Label, given: Iterable[str], most: int | None = None) -> None:
        self.is_open = label.is_open
        self.values: dict[str, None] = dict.fromkeys(label.values)
        self._room = self._most = label.learns if most is None else most
        if not self.is_open:
            self.values |= dict.fromkeys(given)
        self.bound = len(self.values) + self._room + 1
        """Values that there may ever be, `other` among them."""
        if self.is_open:
            for value in given:
                self.take(value)

    def give(self, given: Iterable[str], most: int | None = None) -> None:
        """Know further values, and have room for `most`. Those that were known stay: they have been counted."""
        if most is not None:
            self._room, self._most = max(0, self._room + most - self._most), most
        if not self.is_open:
            self.values |= dict.fromkeys(given)
        self.bound = len(self.values) + self._room + 1
        if self.is_open:
            for value in given:
                self.take(value)

    def take(self, value: str) -> str:
        """Return the value if it is known, or may become so; else `other`."""
        if value in self.values:
            return value
        if self._room > 0 and 0 < len(value) <= _LONGEST:
            self._room -= 1
            self.values[value] = None
            return value
        return OTHER
