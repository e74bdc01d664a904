"""Links in the texts of an input: texts that contain `http://` or `https://`, at any depth."""

import re
from collections.abc import Callable, Iterable
from typing import Any

# In JSON a colon within a text is the only one before a slash or a backslash, and any character may be written by its
# number. The expression begins with a literal, so large inputs are searched at the speed of `bytes.find`.
_MAY_BE_LINK = re.compile(rb":(?:\\[tnr])*+[/\\]")
_BY_NUMBER = b"\\u00"
# Browsers and Python's urllib read a backslash as a slash, and take one slash for two.
_MARKS = ("http:/", "https:/", "http:\\", "https:\\")
_DROPPED = ("\t", "\n", "\r")
"""What URL parsers drop from anywhere in a link (WHATWG URL, and Python's urllib)."""


def may_be_in(given: bytes) -> bool:
    """Return whether an input (JSON) can contain a link. False for most, after one fast scan."""
    return _BY_NUMBER in given or _MAY_BE_LINK.search(given) is not None


def is_in(text: str) -> bool:
    """Return whether a text contains `http://` or `https://`, in any spelling that is fetched as such."""
    if ":" not in text:
        return False
    folded = text.lower()
    for dropped in _DROPPED:
        folded = folded.replace(dropped, "")
    return any(mark in folded for mark in _MARKS)


def find(values: Iterable[Any], is_known: Callable[[str], bool] = lambda _: False) -> str | None:
    """Return a text that contains a link and is not known, among decoded values and keys at any depth, or `None`."""
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, str):
            if is_in(value) and not is_known(value):
                return value
        elif isinstance(value, list):
            left += value
        elif isinstance(value, dict):
            left += value
            left += value.values()
    return None
