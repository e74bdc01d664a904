"""Shortens the logs in very large documents of upstream to their end.

Many steps go through a document in one call, during which nothing else in the process runs. Up to some MiB a call takes
a few milliseconds. What makes a document larger than that is nearly always its logs, of which the end matters.

The logs are found in small steps: a regular expression is never given more than `_STEP` bytes.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

LARGE: Final = 16 * 1024 * 1024
"""Smaller documents keep their logs."""
KEPT: Final = 4 * 1024 * 1024
"""Bytes of logs that a larger one keeps, as they are written in JSON."""
_STEP: Final = 256 * 1024
_MOST_STRINGS: Final = 100_000
"""In a document of more strings, the logs are not looked for."""
_IN_STRING: Final = re.compile(rb'(?:[^"\\]++|\\u[0-9A-Fa-f]{4}|\\[^u])*+')
_SECOND_HALF: Final = re.compile(rb"\\u[dD][c-fC-F]")
"""Begins the second escape of a character that JSON writes as two."""
_LOGS: Final = b'"logs"'
_NOTE: Final = b"[The gateway has removed the first %d bytes of these logs.]\\n"


class _String(NamedTuple):
    """A string of the document: where it begins and ends, with its quotes, and how deep it is nested."""

    start: int
    end: int
    depth: int


def shortened(document: bytes) -> bytes:
    """Return a document with the end of its logs, if it is large; else the same object."""
    if len(document) <= LARGE:
        return document
    is_logs = False
    for string in _strings(document):
        if string.depth == 1 and is_logs:
            return _without_start(document, string.start + 1, string.end - 1)
        is_logs = string.depth == 1 and _is_name_of_logs(document, string)
    return document


def _is_name_of_logs(document: bytes, string: _String) -> bool:
    """Return whether a string is the name `logs`, and its value is a string."""
    if document[string.start : string.end] != _LOGS:
        return False
    between = document[string.end : string.end + 64].split(b'"', 1)[0]
    return between.strip() == b":"


def _strings(document: bytes) -> Iterator[_String]:
    """Yield the strings of a JSON text in order, `_MOST_STRINGS` at most."""
    at = depth = 0
    for _ in range(_MOST_STRINGS):
        start = _find_quote(document, at)
        if start < 0:
            return
        for low in range(at, start, _STEP):
            outside = document[low : min(start, low + _STEP)]
            depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
        end = start + 1
        for end in _boundaries(document, start + 1):  # noqa: B007
            pass
        if document[end : end + 1] != b'"':
            return
        at = end + 1
        yield _String(start, at, depth)


def _find_quote(document: bytes, at: int) -> int:
    for low in range(at, len(document), _STEP):
        found = document.find(b'"', low, low + _STEP)
        if found >= 0:
            return found
    return -1


def _boundaries(document: bytes, at: int) -> Iterator[int]:
    """Yield places in a string at which no escape is cut, `_STEP` bytes apart; the last one is the string's end."""
    while True:
        found = _IN_STRING.match(document, at, at + _STEP)
        end = at if found is None else found.end()
        yield end
        # An escape can be cut by the end of the step: it begins the next one.
        if end == at or (document[end : end + 1] != b"\\" and end < at + _STEP):
            return
        at = end


def _without_start(document: bytes, start: int, end: int) -> bytes:
    """Return the document with the last `KEPT` bytes of the text from `start` to `end`, or a little less."""
    if end - start <= KEPT:
        return document
    cut = next((each for each in _boundaries(document, start) if each >= end - KEPT), end)
    while cut < end and document[cut] & 0xC0 == 0x80:
        # In a character.
        cut += 1
    if _SECOND_HALF.match(document, cut):
        cut += len(rb"\udc00")
    # Let it begin with a line, if that is near: `\n` at an even number of backslashes.
    line = document.find(b"\\n", cut, min(end, cut + _STEP))
    if line >= 0 and document[line - 1 : line] != b"\\":
        cut = line + 2
    return b"".join((document[:start], _NOTE % (cut - start), document[cut:]))
