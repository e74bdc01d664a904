"""How many rounds a randomised test plays: a few in `make test`, many in `make test-long`."""

from collections.abc import Sequence
from typing import Any

import pytest

_FEW = 100


def seeds(few: int, many: int) -> list[Any]:
    """Return the seeds 0 to `many` - 1 as parameters; those from `few` on run in `make test-long` only."""
    return [*range(few), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(few, many))]


def split(values: Sequence[Any], few: Sequence[Any]) -> list[Any]:
    """Return all values as parameters; those that are not among `few` run in `make test-long` only."""
    return [value if value in few else pytest.param(value, marks=pytest.mark.long) for value in values]


def on_engine(engine: str, examples: int) -> int:
    """Return how many examples run on an engine: in `make test`, two fifths on any but SQLite.

    The engines share the rules of the steps. On a server each step takes a trip, and ten times as long.
    """
    return examples if engine == "sqlite" or examples > _FEW else examples * 2 // 5


def amounts(few: int, many: int) -> list[Any]:
    """Return two parameters: for a run with few rounds or examples, and for a long one with many.

    Both have a generous timeout, as many small steps take long on a crowded machine.
    """
    return [
        pytest.param(few, marks=pytest.mark.timeout(120)),
        pytest.param(many, marks=[pytest.mark.long, pytest.mark.timeout(3600)]),
    ]
