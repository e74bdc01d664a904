"""Durations as people write them: `90d`, `12h`, `30m`, `45s`, `1h30m`."""

import re
from typing import Final

_UNITS: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PART: Final = re.compile(r"([0-9]{1,9})([a-z])")
_EXAMPLES: Final = "for example: 90d, 12h, 1h30m"
_LONGEST: Final = 36_500 * 86_400
"""A hundred years: more is a mistake, and would not fit into a date."""


def parse_duration(text: str) -> int:
    """Return the seconds that a duration lasts. Raises `ValueError` with what is wrong.

    Units go from large to small, each at most once, without spaces; the sum must not be zero.
    """
    total, position, smallest = 0, 0, None
    if not text:
        raise ValueError(f"a duration is needed ({_EXAMPLES})")
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise ValueError(f"not a duration: {text[:40]!r}; expected a whole number and a unit ({_EXAMPLES})")
        amount, unit = int(part[1]), part[2]
        if unit not in _UNITS:
            raise ValueError(f"unknown unit {unit!r} in {text[:40]!r}; the units are {', '.join(_UNITS)}")
        if smallest is not None and _UNITS[unit] >= smallest:
            raise ValueError(f"units go from large to small, each once, in {text[:40]!r} ({_EXAMPLES})")
        smallest = _UNITS[unit]
        total += amount * smallest
        position = part.end()
    if not total:
        raise ValueError(f"a duration cannot be zero, got {text[:40]!r} ({_EXAMPLES})")
    if total > _LONGEST:
        raise ValueError(f"a duration must be at most 100 years, got {text[:40]!r}")
    return total
