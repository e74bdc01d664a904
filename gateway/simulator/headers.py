"""Parse the request headers of a create: `Prefer` and `Cancel-After`."""

import re

# The pattern of the API's OpenAPI document. It accepts 61 to 99 although the limit is 60.
_PREFER = re.compile(r"^wait(=([1-9]|[1-9][0-9]|60))?$")
_DURATION = re.compile(r"^(?:(?P<h>\d+)h)?(?:(?P<m>\d+)m)?(?:(?P<s>\d+)s)?$")
LONGEST_WAIT_SECONDS = 60
SHORTEST_DEADLINE_SECONDS = 5
LONGEST_DEADLINE_SECONDS = 24 * 3600


def parse_prefer(value: str | None) -> float | None:
    """Return the sync wait in seconds, or None without the header. Raise `ValueError` if it is malformed."""
    if value is None:
        return None
    match = _PREFER.match(value.strip())
    if match is None:
        raise ValueError("Prefer must be `wait` or `wait=n` with n between 1 and 60")
    return float(min(int(match[2] or LONGEST_WAIT_SECONDS), LONGEST_WAIT_SECONDS))


def parse_cancel_after(value: str | None) -> int | None:
    """Parse a duration such as `30`, `90s`, `1m30s` or `2h30m`. Raise `ValueError` outside 5 s to 24 h."""
    if value is None:
        return None
    text = value.strip()
    match = _DURATION.match(f"{text}s" if text.isascii() and text.isdigit() else text)
    if not text or match is None or not text.isascii():
        raise ValueError(f"Cancel-After is not a duration such as 30, 90s, 1m30s or 2h30m: {text}")
    seconds = int(match["h"] or 0) * 3600 + int(match["m"] or 0) * 60 + int(match["s"] or 0)
    if seconds < SHORTEST_DEADLINE_SECONDS:
        raise ValueError("Cancel-After must be at least 5 seconds")
    if seconds > LONGEST_DEADLINE_SECONDS:
        raise ValueError("Cancel-After must be at most 24 hours")
    return seconds
