"""Which values of a team's limited cost tags operators see, of all that apps have sent."""

from collections.abc import Iterable, Sequence
from typing import Final

from gateway.domain import tags
from gateway.domain.ledger import OTHER_VALUES

MOST_LISTED: Final = 10
"""Values of a tag that are listed beside those that the config names."""


def named(names: Iterable[str]) -> list[str]:
    """Return the values that the config names, each as tags of its own."""
    split = (name.partition(":") for name in names)
    return [tags.text_of({tag: value}) for tag, colon, value in split if colon]


def of_every_value(names: Iterable[str]) -> list[str]:
    """Return the tags of which each value has limits."""
    return [name for name in names if ":" not in name]


def listed(tag: str, used: Sequence[object]) -> list[str]:
    """Return values of a tag in usage, each as tags of its own; without those that are counted together, or none."""
    return [tags.text_of({tag: value}) for value in used if isinstance(value, str) and value != OTHER_VALUES]
