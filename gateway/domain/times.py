"""Parse and format times as Replicate does: RFC 3339, UTC, with `Z` and a fraction of varying length.

See docs/replicate-api.md, Prediction object.
"""

import math
import re
from datetime import UTC, datetime
from functools import lru_cache

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DATE_LENGTH = 10
_FIRST = datetime(1, 1, 1, tzinfo=UTC).timestamp()
_END = datetime(9999, 12, 31, tzinfo=UTC).timestamp() + 86_400
"""Years have four digits. With a zone or a fraction, a time can be in another one by UTC."""
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,30}))?([Zz]|[+-]\d\d:?\d\d)?",
    re.ASCII,
)


def parse(text: str) -> float:
    """Parse a time to epoch seconds. The fraction can have any length. A date means its midnight.

    Raise `ValueError` for anything else.
    """
    if len(text) == _DATE_LENGTH and _DATE.fullmatch(text):
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    seconds, fraction = _split(text.strip())
    at = seconds + (float(f"0.{fraction}") if fraction else 0.0)
    if not _FIRST <= at < _END:
        # `render` could not write it.
        raise ValueError("expected a time of the years 1 to 9999, in UTC")
    return at


def nanoseconds(text: str) -> int:
    """Parse a time to epoch nanoseconds, exactly: floats have a resolution of only a quarter of a microsecond.

    Raise `ValueError` if it is no time.
    """
    seconds, fraction = _split(text.strip())
    return int(seconds) * 10**9 + int(f"{fraction or '':0<9}"[:9])


# The times of a run are read for each of its answers and for several purposes. What matches has at most 60 characters.
@lru_cache(maxsize=256)
def _split(text: str) -> tuple[float, str | None]:
    """Return the epoch time in whole seconds, and the digits of the fraction."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("expected an ISO 8601 time (for example: 2026-01-31T12:00:00Z)")
    date, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in (None, "Z", "z") else zone
    return datetime.fromisoformat(f"{date}T{clock}{zone}").timestamp(), fraction


def render(at: float) -> str:
    """Format epoch seconds with milliseconds: `2024-04-22T11:15:14.469Z`."""
    # As `datetime` does it, but each second is formatted once: 0.5 instead of 1.3 µs.
    fraction, whole = math.modf(at)
    microseconds = round(fraction * 1e6)
    if not 0 <= microseconds < 1_000_000:
        return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"{_second(whole)}.{microseconds // 1000:03}Z"


@lru_cache(maxsize=16)
def _second(whole: float) -> str:
    return datetime.fromtimestamp(whole, UTC).isoformat().removesuffix("+00:00")
