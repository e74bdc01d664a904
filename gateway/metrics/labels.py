"""Labels and the values that they may have. Every label is bounded, so the number of series is too.

A label value is never an id, a URL or free text. A value that is not allowed, or exceeds the limit, is replaced by
`other` and counted in `labels_dropped_total`.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

OTHER: Final = "other"
_LONGEST = 200
"""Longest value in characters. Names of targets come from callers."""


class Label(msgspec.Struct, frozen=True, eq=False):
    """A label.

    `values` are always allowed. `known_from` names a set of values that the gateway knows at start: teams, routes, or
    the targets in the config. `max_learned` is how many further values are allowed, first come, first served; those of
    `known_from` come first.
    """

    name: str
    values: tuple[str, ...] = ()
    known_from: str | None = None
    max_learned: int = 0
    help_text: str = ""

    @property
    def is_open(self) -> bool:
        """Whether further values are learned."""
        return self.max_learned > 0


def closed(name: str, *values: str) -> Label:
    """Return a label with exactly these values."""
    return Label(name, values)


class Domain:
    """The values of a label so far."""

    def __init__(self, label: Label, known: Iterable[str], max_learned: int | None = None) -> None:
        self.is_open = label.is_open
        self.values: dict[str, None] = dict.fromkeys(label.values)
        self._room = self._max_learned = label.max_learned if max_learned is None else max_learned
        if not self.is_open:
            self.values |= dict.fromkeys(known)
        self.bound = len(self.values) + self._room + 1
        """Largest possible number of values, including `other`."""
        if self.is_open:
            for value in known:
                self.accept(value)

    def extend(self, known: Iterable[str], max_learned: int | None = None) -> None:
        """Add known values and change the limit. Existing values stay, because their series exist."""
        if max_learned is not None:
            self._room = max(0, self._room + max_learned - self._max_learned)
            self._max_learned = max_learned
        if not self.is_open:
            self.values |= dict.fromkeys(known)
        self.bound = len(self.values) + self._room + 1
        if self.is_open:
            for value in known:
                self.accept(value)

    def accept(self, value: str) -> str:
        """Return the value if it is known or can be learned, else `other`."""
        if value in self.values:
            return value
        if self._room > 0 and 0 < len(value) <= _LONGEST:
            self._room -= 1
            self.values[value] = None
            return value
        return OTHER
