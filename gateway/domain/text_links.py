"""Links in the texts of an input: texts that contain `http://` or `https://`, at any depth."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from gateway.domain.json_scan import contains

# Browsers and Python's urllib read a backslash as a slash, and take one slash for two.
_MARKS = ("http:/", "https:/", "http:\\", "https:\\")
# At the beginning of a text, browsers take no slash for two.
_LINK = re.compile(r"[\x00-\x20]*+https?:[^\x00-\x20]", re.IGNORECASE)
_FEW = 100
_SHORT = 4096
_QUOTE = ord('"')
_WINDOW = 32
_LONGEST_SCHEME = 8
_ASCII_BY_NUMBER = re.compile(rb"\\u00[0-7]")
_LONGEST_NUMBER = 4
"""Bytes of a match of it, but one."""
_ENDS_OF_LINES = b"\t\r\n"
_PIECE = 1 << 16
_DROPPED = ("\t", "\n", "\r")
"""What URL parsers drop from anywhere in a link (WHATWG URL, and Python's urllib)."""


def may_be_in(given: bytes) -> bool:
    """Return whether an input (JSON) can contain a link, in any spelling. False for most, after two fast scans."""
    if b"\\" not in given:
        if len(given) < _SHORT:
            return b"http" in given.lower()
    elif contains(given, b"\\u00") and _spells_ascii_by_number(given):
        return True
    # A long text has few colons, and to find them is ten times as fast as to fold its letters.
    at = given.find(b":")
    for _ in range(_FEW):
        if at < 0:
            return False
        # Most colons stand behind a name.
        if given[at - 1] != _QUOTE and _may_end_with_scheme(given[max(0, at - _WINDOW) : at]):
            return True
        at = given.find(b":", at + 1)
    # In pieces, so that nothing as large as a file is copied.
    return b"\\" in given or any(b"http" in given[at : at + _PIECE + 3].lower() for at in range(0, len(given), _PIECE))


def _spells_ascii_by_number(given: bytes) -> bool:
    return any(
        _ASCII_BY_NUMBER.search(given, at, at + _PIECE + _LONGEST_NUMBER) is not None
        for at in range(0, len(given), _PIECE)
    )


def _may_end_with_scheme(before: bytes) -> bool:
    """Return whether what stands before a colon can be `http` or `https`, for any reader of URLs.

    Letters are not spelled by number here, but line ends and tabs, which readers drop, can stand between them.
    """
    text = before.rpartition(b'"')[2]
    if b"\\" in text:
        text = text.replace(b"\\n", b"").replace(b"\\r", b"").replace(b"\\t", b"")
        # Fewer letters than these can be the end of a scheme whose beginning is not here.
        if len(text) < _LONGEST_SCHEME or b"\\" in text:
            return True
    return b"http" in text.lower() or text.translate(None, _ENDS_OF_LINES) != text


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
