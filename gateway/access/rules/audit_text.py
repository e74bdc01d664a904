"""The form of audit entries in the store: JSON without secrets, of bounded length.

Callers keep secrets out of what they record. What looks like one is removed here all the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from gateway.access.rules.api_keys import conceal
from gateway.domain.audit import Values

LONGEST_TEXT: Final = 1000
LONGEST_NAME: Final = 200
"""Characters of an actor or a subject."""
MOST_VALUES: Final = 500
"""Values of one object or list; what comes after them is only counted."""
MOST_BYTES: Final = 65_536
_DEEPEST: Final = 6


def clean_text(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text without secrets and NUL characters, cut if it is long."""
    # Cut first: the work is bounded. What is cut off of a secret leaves less of it, and its beginning is concealed.
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    # PostgreSQL stores neither NUL nor half of a surrogate pair.
    return conceal(cut).replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def to_json(values: Values | None) -> str | None:
    """Return values as JSON, without secrets; `None` stays."""
    if values is None:
        return None
    text = msgspec.json.encode(_cleaned(values, 0)).decode()
    return text if len(text) <= MOST_BYTES else '{"too_long":true}'


def from_json(text: str | None) -> Values | None:
    """Return the values of an entry."""
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])


def _cleaned(value: object, depth: int) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return clean_text(value)
        case Mapping() if depth < _DEEPEST:
            items = list(value.items())
            shown = {clean_text(str(name)): _cleaned(each, depth + 1) for name, each in items[:MOST_VALUES]}
            return shown if len(items) <= MOST_VALUES else shown | {"…": len(items) - MOST_VALUES}
        case Sequence() | frozenset() | set() if depth < _DEEPEST:
            listed = list(value)
            more = [f"and {len(listed) - MOST_VALUES} more"] if len(listed) > MOST_VALUES else []
            return [_cleaned(each, depth + 1) for each in listed[:MOST_VALUES]] + more
        case _:
            return clean_text(str(value))
