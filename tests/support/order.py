"""The order of the tests where several workers share them.

In the order of their folders, all workers would wait at the same time, for browsers, processes and databases, and
compute at the same time. So each folder is spread over the whole run. Tests of `tests/unit`, which take milliseconds,
are the last ones, so that no worker is left alone with a long test.
"""

from collections import Counter
from collections.abc import Sequence

_SHORT = "unit"
_LONG_ONES_END_AT = 0.9


def mixed(nodeids: Sequence[str]) -> dict[str, float]:
    """Return the place of each test, by which they are sorted. Tests of one folder keep their order."""
    numbers = Counter(map(_folder, nodeids))
    seen: Counter[str] = Counter()
    places: dict[str, float] = {}
    for nodeid in nodeids:
        folder = _folder(nodeid)
        share = 1.0 if folder == _SHORT else _LONG_ONES_END_AT
        places[nodeid] = share * seen[folder] / numbers[folder]
        seen[folder] += 1
    return places


def _folder(nodeid: str) -> str:
    """Return the folder in `tests`."""
    return nodeid.split("/")[1]
