"""RFC 3339 times in the API's two formats: trimmed fractions at the edge, microseconds from the database."""

import re
from datetime import UTC, datetime

_TIME = re.compile(r"^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|z|[+-]\d\d:?\d\d)?$")


def edge_time(microseconds: int, digits: int = 3) -> str:
    """Format like Go: at most `digits` fractional digits without trailing zeros (`.04Z`, or no fraction)."""
    base, fraction = _split(microseconds)
    shown = f"{fraction:06d}000"[:digits].rstrip("0")
    return f"{base}.{shown}Z" if shown else f"{base}Z"


def database_time(microseconds: int) -> str:
    """Format like Django: six fractional digits, or no fraction if it is zero."""
    base, fraction = _split(microseconds)
    return f"{base}.{fraction:06d}Z" if fraction else f"{base}Z"


def exact_time(microseconds: int, digits: int) -> str:
    """Format with exactly `digits` fractional digits (0, 3, 6 or 9)."""
    base, fraction = _split(microseconds)
    return f"{base}.{f'{fraction:06d}000'[:digits]}Z" if digits else f"{base}Z"


def parse_time(text: str) -> int:
    """Parse an ISO 8601 date or time to epoch microseconds. Raise `ValueError` if invalid."""
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        text += "T00:00:00Z"
    match = _TIME.match(text.replace(" ", "+") if text.count(" ") and "T" in text else text)
    if match is None:
        raise ValueError(f"not an ISO 8601 time: {text!r}")
    date, clock, fraction, zone = match.groups()
    offset = "+00:00" if zone in {None, "Z", "z"} else zone
    whole = datetime.fromisoformat(f"{date}T{clock}{offset}")
    return int(whole.timestamp()) * 1_000_000 + int(f"{fraction or '0':0<6}"[:6])


def _split(microseconds: int) -> tuple[str, int]:
    seconds, fraction = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S"), fraction
