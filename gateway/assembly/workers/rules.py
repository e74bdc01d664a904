"""When a worker that has ended is started again."""

from typing import Final

_SHORTEST: Final = 0.5
_LONGEST: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""A worker that has served for so long does not count as one that fails again and again."""


def pause(failures: int) -> float:
    """Return the seconds until a worker is started again, after so many ends in a row."""
    return float(min(_LONGEST, _SHORTEST * 2 ** min(failures - 1, 10)))
