"""What part of a file a request is answered with (RFC 9110, 13 and 14): conditions first, then one range.

Several ranges at once are answered with the whole file, which the standard allows and every client takes: players and
downloaders ask for one.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,18})[ \t]*-[ \t]*(\d{0,18})[ \t]*", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


class Whole(msgspec.Struct, frozen=True):
    """All of it (200)."""


class Part(msgspec.Struct, frozen=True):
    """From `start` up to, but not with, `stop` (206)."""

    start: int
    stop: int


class NotModified(msgspec.Struct, frozen=True):
    """The caller has it already (304)."""


class Failed(msgspec.Struct, frozen=True):
    """The caller wants another file than there is (412)."""


class Unsatisfiable(msgspec.Struct, frozen=True):
    """The range lies outside of the file (416)."""


Selection = Whole | Part | NotModified | Failed | Unsatisfiable


def select(headers: Mapping[str, str], *, etag: str, modified_at: float, size: int, is_head: bool = False) -> Selection:
    """Say what to answer. `headers` are the request's, found in whatever case; `etag` is strong, and quoted."""
    modified_at = float(int(modified_at))
    wanted, unmodified_since = headers.get("If-Match"), _time(headers.get("If-Unmodified-Since"))
    if wanted is not None:
        if not _names(wanted, etag, weakly=False):
            return Failed()
    elif unmodified_since is not None and modified_at > unmodified_since:
        return Failed()
    known, modified_since = headers.get("If-None-Match"), _time(headers.get("If-Modified-Since"))
    if known is not None:
        if _names(known, etag, weakly=True):
            return NotModified()
    elif modified_since is not None and modified_at <= modified_since:
        return NotModified()
    text = headers.get("Range")
    if text is None or is_head or not _is_same(headers.get("If-Range"), etag, modified_at):
        return Whole()
    return _part(text, size)


def _part(text: str, size: int) -> Whole | Part | Unsatisfiable:
    """Read one range. What is not understood is passed over, as the standard says."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        return Whole()
    if not match[1]:
        length = int(match[2])
        return Part(max(0, size - length), size) if length and size else Unsatisfiable()
    start = int(match[1])
    if match[2] and int(match[2]) < start:
        return Whole()
    stop = min(int(match[2]) + 1, size) if match[2] else size
    return Part(start, stop) if start < size else Unsatisfiable()


def _names(text: str, etag: str, *, weakly: bool) -> bool:
    """Say whether a list of entity tags has this one. A weak tag names it for `If-None-Match` only."""
    if text.strip() == "*":
        return True
    return any(each[1] == etag and (weakly or not each[0].startswith("W/")) for each in _TAG.finditer(text))


def _is_same(condition: str | None, etag: str, modified_at: float) -> bool:
    """Say whether `If-Range` lets a part be given: the tag is this one, or the date is the file's own."""
    if condition is None or condition.strip() == etag:
        return True
    return _time(condition) == modified_at


def _time(text: str | None) -> float | None:
    try:
        at = parsedate_to_datetime(text) if text else None
    except (ValueError, OverflowError):
        return None
    if at is None:
        return None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def http_date(at: float) -> str:
    """Write a time as headers have it."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
