"""Comparing the sums that are kept with the ledger, which is the truth (docs/architecture.md, Invariants 7).

The lines of one day are added up in steps. With the last of them come the sums that are kept, from the same snapshot.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import TypeVar

import msgspec

K = TypeVar("K")

Sums = tuple[int, int, int, int, int, int]
"""Runs, joined, hits, milliseconds, micro-dollars spent, micro-dollars saved."""
NOTHING: Sums = (0, 0, 0, 0, 0, 0)

ByModel = dict[tuple[str, str, str], Sums]
"""By team, key and target."""
ByUser = dict[tuple[str, str], Sums]
"""By team and user; empty for none."""
Spent = dict[str, tuple[int, int]]
"""Milliseconds and micro-dollars spent, by scope."""


class Kept(msgspec.Struct, frozen=True):
    """The sums that are kept of a day."""

    by_model: ByModel
    by_user: ByUser
    spent: Spent


class Audited(msgspec.Struct, frozen=True):
    """Some lines of a day, added up."""

    last: int
    """The last line: where to go on after it."""
    lines: int
    by_model: ByModel
    by_user: ByUser
    spent: Mapping[tuple[str, ...], tuple[int, int]]
    """Milliseconds and micro-dollars, by the scopes in which they were counted."""
    kept: Kept | None
    """What is kept, once all lines have been seen."""


class Tally:
    """The lines of a day so far."""

    def __init__(self) -> None:
        self._by_model: dict[tuple[str, str, str], Sums] = defaultdict(lambda: NOTHING)
        self._by_user: dict[tuple[str, str], Sums] = defaultdict(lambda: NOTHING)
        self._spent: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))

    def add(self, audited: Audited) -> None:
        """Take in the next lines."""
        for place, sums in audited.by_model.items():
            self._by_model[place] = _add(self._by_model[place], sums)
        for person, sums in audited.by_user.items():
            self._by_user[person] = _add(self._by_user[person], sums)
        for scopes, (milliseconds, microusd) in audited.spent.items():
            for scope in scopes:
                before = self._spent[scope]
                self._spent[scope] = (before[0] + milliseconds, before[1] + microusd)

    def drift(self, kept: Kept) -> list[str]:
        """Name the sums that are not what the lines come to."""
        wrong = [f"usage of {' '.join(place)}" for place in _differing(self._by_model, kept.by_model)]
        wrong += [f"usage of {' '.join(person)}" for person in _differing(self._by_user, kept.by_user)]
        return wrong + [f"spent by {scope}" for scope in _differing_spent(self._spent, kept.spent)]


def _add(one: Sums, other: Sums) -> Sums:
    return tuple(map(sum, zip(one, other, strict=True)))  # type: ignore[return-value]


def _differing(one: Mapping[K, Sums], other: Mapping[K, Sums]) -> list[K]:
    return [key for key in {**one, **other} if one.get(key, NOTHING) != other.get(key, NOTHING)]


def _differing_spent(one: Mapping[str, tuple[int, int]], other: Mapping[str, tuple[int, int]]) -> list[str]:
    return [key for key in {**one, **other} if one.get(key, (0, 0)) != other.get(key, (0, 0))]
