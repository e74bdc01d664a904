"""Cost tags: what an app says a prediction is for, such as `project=apollo`.

The config lists the keys. Values are free text, so their number is bounded where they are counted, by team, key and
day: `gateway.domain.ledger.MOST_VALUES_A_DAY`.

In records, tags are one text: a JSON object with sorted keys and no white space, or the empty text for none. Equal tags
are equal texts.
"""

import re
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Final

import msgspec

HEADER: Final = "Gateway-Tags"
MOST_KEYS: Final = 10
"""Keys of the config. Each tag of a prediction is one more sum that changes with it."""
KEY: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
LONGEST_VALUE: Final = 100
NONE: Final = ""
_VALUE: Final = re.compile(r"[A-Za-z0-9._~:/@+-]{1,100}", re.ASCII)
_VALUES: Final = f"1 to {LONGEST_VALUE} letters, digits and . _ ~ : / @ + -"
LIMITED: Final = re.compile(f"{KEY.pattern}(?::{_VALUE.pattern})?", re.ASCII)
"""What the config names where it limits tags: `project`, for each of its values, or `project:apollo`, for this one."""
_SHOWN: Final = 60
"""Characters of a request's text in a message."""

_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(dict[str, str]).decode

Pairs = tuple[tuple[str, str], ...]
"""Keys and values, sorted by key."""


def parse(header: str, keys: Collection[str]) -> str:
    """Read a header `Gateway-Tags: project=apollo, feature=search`. `keys` are those of the config.

    Raise `ValueError` that says what is wrong with it.
    """
    given: dict[str, str] = {}
    for part in header.split(","):
        # An empty element of a list is ignored (RFC 9110, 5.6.1.2).
        if not (item := part.strip(" \t")):
            continue
        key, equals, value = item.partition("=")
        key, value = key.rstrip(" \t"), value.lstrip(" \t")
        if not equals:
            raise ValueError(f"expected key=value, got {_shown(item)}")
        if key in given:
            raise ValueError(f"{_shown(key)} is given twice")
        given[key] = value
    return of(given, keys)


def of(given: Mapping[str, str], keys: Collection[str]) -> str:
    """Return tags as they are recorded. Raise `ValueError` that says what is wrong with them."""
    for key, value in given.items():
        if key not in keys:
            known = f"the keys are {', '.join(sorted(keys))}" if keys else "the gateway's config lists no keys"
            raise ValueError(f"there is no tag {_shown(key)}: {known}")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"expected {_VALUES} as the value of {key}, got {_shown(value)}")
    return text_of(given)


def text_of(tags: Mapping[str, str]) -> str:
    """Return valid tags as they are recorded."""
    return _encode(tags).decode() if tags else NONE


@lru_cache(maxsize=1024)
def pairs(text: str) -> Pairs:
    """Return recorded tags as keys and values."""
    return tuple(_decode(text).items()) if text else ()


def mapping(text: str) -> dict[str, str]:
    """Return recorded tags as values by key."""
    return dict(pairs(text))


def limited_as(team: str, key: str, value: str) -> str:
    """Return the id of a value of a team's tag among the subjects of limits. No part of it has a space or a `=`."""
    return f"team {team}: {key}={value}"


def of_limited(subject_id: str) -> tuple[str, str]:
    """Return the key and the value of such an id."""
    key, _, value = subject_id.partition(": ")[2].partition("=")
    return key, value


def _shown(text: str) -> str:
    return repr(text[:_SHOWN])
