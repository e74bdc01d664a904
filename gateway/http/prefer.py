"""Parsers for the headers `Prefer` and `Cancel-After`.

See docs/replicate-api.md, Sync mode and Deadlines.
"""

import re

MAX_WAIT_SECONDS = 60.0
_PREFER = re.compile(r"wait(?:=([1-9][0-9]?))?")
_DURATION = re.compile(r"(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s?)?", re.ASCII)
CANCEL_AFTER_SECONDS = (5, 24 * 3600)


def parse_prefer(header: str | None) -> float | None:
    """Return how many seconds a create waits for its result, or `None` if it does not wait.

    Replicate's schema accepts 61 to 99 although its limit is 60; these wait 60. Raise `ValueError` for anything else
    that the schema does not accept.
    """
    if header is None:
        return None
    match = _PREFER.fullmatch(header.strip())
    if match is None:
        raise ValueError("expected wait or wait=n with n from 1 to 60")
    return min(float(match[1]), MAX_WAIT_SECONDS) if match[1] else MAX_WAIT_SECONDS


def parse_cancel_after(header: str | None) -> float | None:
    """Return the seconds after which the prediction is cancelled, or `None` without the header.

    Accepts `30`, `90s`, `1m30s`, `2h30m`; 5 s to 24 h. Raise `ValueError` for anything else.
    """
    if header is None:
        return None
    text = header.strip()
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError("expected seconds, or a combination of h, m and s (for example: 1m30s)")
    if text[-1].isdigit() and (match[1] or match[2]):
        raise ValueError("the last number needs a unit (for example: 1m30s)")
    hours, minutes, seconds = (int(group or 0) for group in match.groups())
    total = hours * 3600 + minutes * 60 + seconds
    shortest, longest = CANCEL_AFTER_SECONDS
    if not shortest <= total <= longest:
        raise ValueError("expected at least 5 seconds and at most 24 hours")
    return float(total)
