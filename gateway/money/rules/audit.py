"""Compare the stored sums of a day with the ledger's entries, which are authoritative (docs/architecture.md, Invariants
7).

The entries of a day are added up in steps. The last step also has the stored sums, from the same snapshot.
"""

from collections import Counter, defaultdict
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
"""By team and user; the user is empty if the request named none."""
ByTag = dict[tuple[str, str, str], Sums]
"""By team, tag and value. Predictions without a tag are not counted."""
Spent = dict[str, tuple[int, int]]
"""Milliseconds and micro-dollars spent, by scope."""


class StoredSums(msgspec.Struct, frozen=True):
    """The stored sums of a day."""

    by_model: ByModel
    by_user: ByUser
    by_tag: ByTag
    spent: Spent

    @property
    def most_values(self) -> int:
        """The largest number of values that a tag has in a team."""
        return max(Counter((team, tag) for team, tag, _ in self.by_tag).values(), default=0)


class Audited(msgspec.Struct, frozen=True):
    """The sums of some consecutive entries of a day."""

    last: int
    """Number of the last entry: the next step starts after it."""
    lines: int
    """Number of entries."""
    by_model: ByModel
    by_user: ByUser
    by_tag: ByTag
    spent: Mapping[tuple[str, ...], tuple[int, int]]
    """Milliseconds and micro-dollars, by the set of scopes they were counted in."""
    stored: StoredSums | None
    """The stored sums, in the last step only."""


class Tally:
    """Adds up the entries of a day."""

    def __init__(self) -> None:
        self._by_model: dict[tuple[str, str, str], Sums] = defaultdict(lambda: NOTHING)
        self._by_user: dict[tuple[str, str], Sums] = defaultdict(lambda: NOTHING)
        self._by_tag: dict[tuple[str, str, str], Sums] = defaultdict(lambda: NOTHING)
        self._spent: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))

    def add(self, audited: Audited) -> None:
        """Add the next entries."""
        for model, sums in audited.by_model.items():
            self._by_model[model] = _add(self._by_model[model], sums)
        for user, sums in audited.by_user.items():
            self._by_user[user] = _add(self._by_user[user], sums)
        for tag, sums in audited.by_tag.items():
            self._by_tag[tag] = _add(self._by_tag[tag], sums)
        for scopes, (milliseconds, microusd) in audited.spent.items():
            for scope in scopes:
                before = self._spent[scope]
                self._spent[scope] = (before[0] + milliseconds, before[1] + microusd)

    def drift(self, stored: StoredSums) -> list[str]:
        """Return a description of every stored sum that differs from the entries."""
        wrong = [f"usage of {' '.join(model)}" for model in _differing(self._by_model, stored.by_model)]
        wrong += [f"usage of {' '.join(user)}" for user in _differing(self._by_user, stored.by_user)]
        wrong += [f"usage of {' '.join(tag)}" for tag in _differing(self._by_tag, stored.by_tag)]
        return wrong + [f"spent by {scope}" for scope in _differing_spent(self._spent, stored.spent)]


def _add(one: Sums, other: Sums) -> Sums:
    return tuple(map(sum, zip(one, other, strict=True)))  # type: ignore[return-value]


def _differing(one: Mapping[K, Sums], other: Mapping[K, Sums]) -> list[K]:
    return [key for key in {**one, **other} if one.get(key, NOTHING) != other.get(key, NOTHING)]


def _differing_spent(one: Mapping[str, tuple[int, int]], other: Mapping[str, tuple[int, int]]) -> list[str]:
    return [key for key in {**one, **other} if one.get(key, (0, 0)) != other.get(key, (0, 0))]
