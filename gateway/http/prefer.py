"""Parsers for the headers `Prefer` and `Cancel-After`.

See docs/replicate-api.md, Sync mode and Deadlines.
"""

import re
from collections.abc import Iterable, Iterator

MAX_WAIT_SECONDS = 60.0
_FEW_DIGITS = 3
# RFC 7240, 2: a name, and a value that can be quoted; parameters after it do not matter. Names have no case.
_WAIT = re.compile(r"wait(?:[ \t]*=[ \t]*(?:\"([0-9]*)\"|([0-9]+)))?[ \t]*(?:;.*)?", re.IGNORECASE | re.DOTALL)
# A quoted text, a comma outside of one, or anything else. A quotation mark without its pair takes the rest.
_PIECES = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|,|[^",]+', re.DOTALL)
_DURATION = re.compile(r"(?:(\d{1,5})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s?)?", re.ASCII)
CANCEL_AFTER_SECONDS = (5, 24 * 3600)


def parse_prefer(headers: Iterable[str]) -> float | None:
    """Return how many seconds a create waits for its result, or `None` if it does not wait.

    The first valid `wait` of all `Prefer` headers counts; without a number it is 60 seconds, and more than 60 are 60.
    `wait=0`, a `wait` that cannot be read and all other preferences are ignored (RFC 7240, 2).
    """
    for header in headers:
        for preference in _preferences(header):
            match = _WAIT.fullmatch(preference)
            if match is None:
                continue
            digits = match[1] or match[2]
            if not digits:
                return MAX_WAIT_SECONDS
            # A number can have thousands of digits; the first ones tell that it is above 60.
            significant = digits.lstrip("0")
            if significant:
                return min(float(significant[:_FEW_DIGITS]), MAX_WAIT_SECONDS)
    return None


def _preferences(header: str) -> Iterator[str]:
    """Split a list at the commas outside of quoted texts."""
    if '"' not in header:
        yield from (part.strip(" \t") for part in header.split(","))
        return
    parts: list[str] = []
    for piece in _PIECES.findall(header):
        if piece == ",":
            yield "".join(parts).strip(" \t")
            parts = []
        else:
            parts.append(piece)
    yield "".join(parts).strip(" \t")


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
