"""Links in the texts of an input: texts that contain `http://` or `https://`, at any depth."""

import re
from collections.abc import Callable, Iterable
from typing import Any

# Browsers and Python's urllib read a backslash as a slash, and take one slash for two.
_MARKS = ("http:/", "https:/", "http:\\", "https:\\")
# At the beginning of a text, browsers take no slash for two.
_LINK = re.compile(r"[\x00-\x20]*+https?:[^\x00-\x20]", re.IGNORECASE)
_FEW = 100
_SHORT = 4096
_SCHEMES = (b"http", b"https")
_ENDS_OF_LINES = b"\t\r\n"
_PIECE = 1 << 16
_DROPPED = ("\t", "\n", "\r")
"""What URL parsers drop from anywhere in a link (WHATWG URL, and Python's urllib)."""


def may_be_in(given: bytes) -> bool:
    """Return whether an input (JSON) can contain a link, in any spelling. False for most, after two fast scans."""
    # A scheme that is not written plainly has escapes in it.
    if b"\\" in given:
        return True
    if len(given) < _SHORT:
        return b"http" in given.lower()
    # A file or a long text has few colons, and to find them is ten times as fast as to fold the letters.
    at = given.find(b":")
    for _ in range(_FEW):
        if at < 0:
            return False
        if given[max(0, at - 8) : at].translate(None, _ENDS_OF_LINES).lower().endswith(_SCHEMES):
            return True
        at = given.find(b":", at + 1)
    # In pieces, so that nothing as large as a file is copied.
    return any(b"http" in given[at : at + _PIECE + 3].lower() for at in range(0, len(given), _PIECE))


def is_in(text: str) -> bool:
    """Return whether a text contains `http://` or `https://`, in any spelling that is fetched as such."""
    if text.count(":") > _FEW or any(dropped in text for dropped in _DROPPED):
        folded = text.lower()
        for dropped in _DROPPED:
            folded = folded.replace(dropped, "")
        return _LINK.match(folded) is not None or any(mark in folded for mark in _MARKS)
    if _LINK.match(text) is not None:
        return True
    # A file in a data: URI has one colon: nothing as large is folded.
    at = text.find(":")
    while at >= 0:
        if text[max(0, at - len("https")) : at + 2].lower().endswith(_MARKS):
            return True
        at = text.find(":", at + 1)
    return False


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
