"""Shortens the logs in very large documents of upstream to their end.

Many steps go through a document in one call, during which nothing else in the process runs. Up to some MiB a call takes
a few milliseconds. What makes a document larger than that is nearly always its logs, of which the end matters.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from gateway.domain import large_bytes, large_json

LARGE: Final = 16 * 1024 * 1024
"""Smaller documents keep their logs."""
KEPT: Final = 4 * 1024 * 1024
"""Bytes of logs that a larger one keeps, as they are written in JSON."""
_LOGS: Final = b'"logs"'
_NOTE: Final = b"[The gateway has removed the first %d bytes of these logs.]\\n"


def shortened(document: bytes) -> bytes:
    """Return a document with the end of its logs, if it is large; else the same object."""
    if len(document) <= LARGE:
        return document
    place = large_json.find(document, _LOGS)
    if place is None or place[1] - place[0] <= KEPT or not _is_string(document, *place):
        return document
    return _without_start(document, place[0] + 1, place[1] - 1)


def _is_string(document: bytes, start: int, end: int) -> bool:
    try:
        return document[start : start + 1] == b'"' and large_json.end_of_string(document, start) == end
    except msgspec.DecodeError:
        return False


def _boundaries(document: bytes, at: int) -> Iterator[int]:
    """Yield places in a string at which no escape is cut, a step apart; the last one is the string's end."""
    while (end := large_json.next_boundary(document, at)) > at:
        yield end
        at = end


def _without_start(document: bytes, start: int, end: int) -> bytes:
    """Return the document with the last `KEPT` bytes of the text from `start` to `end`, or a little less."""
    cut = next((each for each in _boundaries(document, start) if each >= end - KEPT), end)
    while cut < end and document[cut] & 0xC0 == 0x80:
        # In a character.
        cut += 1
    if large_json.SECOND_HALF.match(document, cut):
        cut += len(rb"\udc00")
    # Let it begin with a line, if that is near: `\n` at an even number of backslashes.
    line = document.find(b"\\n", cut, min(end, cut + large_json.STEP))
    if line >= 0 and document[line - 1 : line] != b"\\":
        cut = line + 2
    view = memoryview(document)
    return large_bytes.joined((view[:start], _NOTE % (cut - start), view[cut:]))
