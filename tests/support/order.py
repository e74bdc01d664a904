"""The order of the tests where several workers share them.

In the order of their folders, all workers would wait at the same time, for browsers, processes and databases, and
compute at the same time. So each folder is spread over the whole run. Tests of `tests/unit`, which take milliseconds,
are the last ones, so that no worker is left alone with a long test.
"""

from collections import Counter
from collections.abc import Sequence

import pytest

_SHORT = "unit"
_LONG_ONES_END_AT = 0.9


def mixed(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Spread the tests of each folder evenly. Tests of one folder keep their order."""
    numbers = Counter(_folder(item.nodeid) for item in items)
    seen: Counter[str] = Counter()
    places: dict[str, float] = {}
    for item in items:
        folder = _folder(item.nodeid)
        share = 1.0 if folder == _SHORT else _LONG_ONES_END_AT
        places[item.nodeid] = share * seen[folder] / numbers[folder]
        seen[folder] += 1
    return sorted(items, key=lambda item: places[item.nodeid])


def _folder(nodeid: str) -> str:
    """Return the folder in `tests`."""
    return nodeid.split("/")[1]
