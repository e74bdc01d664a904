"""Select the part of a file that a request gets (RFC 9110, 13 and 14): conditions first, then one range.

A request for several ranges gets the entire file, which the standard allows. Players and download managers ask for one.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,18})[ \t]*-[ \t]*(\d{0,18})[ \t]*", re.IGNORECASE | re.ASCII)
_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


class Whole(msgspec.Struct, frozen=True):
    """The entire file (200)."""


class Part(msgspec.Struct, frozen=True):
    """The bytes from `start` to `stop` (exclusive) (206)."""

    start: int
    stop: int


class NotModified(msgspec.Struct, frozen=True):
    """The caller's cached version is current (304)."""


class Failed(msgspec.Struct, frozen=True):
    """A precondition of the request failed (412)."""


class Unsatisfiable(msgspec.Struct, frozen=True):
    """The range is outside the file (416)."""


Selection = Whole | Part | NotModified | Failed | Unsatisfiable


def select(headers: Mapping[str, str], *, etag: str, modified_at: float, size: int, is_head: bool = False) -> Selection:
    """Return what to respond with. `headers` must be case-insensitive; `etag` is a strong tag with its quotes."""
    modified_at = float(int(modified_at))
    if_match, unmodified_since = headers.get("If-Match"), _time(headers.get("If-Unmodified-Since"))
    if if_match is not None:
        if not _contains(if_match, etag, weakly=False):
            return Failed()
    elif unmodified_since is not None and modified_at > unmodified_since:
        return Failed()
    if_none_match, modified_since = headers.get("If-None-Match"), _time(headers.get("If-Modified-Since"))
    if if_none_match is not None:
        if _contains(if_none_match, etag, weakly=True):
            return NotModified()
    elif modified_since is not None and modified_at <= modified_since:
        return NotModified()
    text = headers.get("Range")
    if text is None or is_head or not _is_unchanged(headers.get("If-Range"), etag, modified_at):
        return Whole()
    return _part(text, size)


def _part(text: str, size: int) -> Whole | Part | Unsatisfiable:
    """Parse one range. An invalid header is ignored, as the standard says."""
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


def _contains(text: str, etag: str, *, weakly: bool) -> bool:
    """Return whether a list of entity tags contains `etag`. Weak tags match only if `weakly`, for `If-None-Match`."""
    if text.strip() == "*":
        return True
    return any(each[1] == etag and (weakly or not each[0].startswith("W/")) for each in _TAG.finditer(text))


def _is_unchanged(condition: str | None, etag: str, modified_at: float) -> bool:
    """Return whether `If-Range` allows a partial response: its tag or its date is the file's."""
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
    """Format a time for HTTP headers."""
    return datetime.fromtimestamp(int(at), UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
