r"""Fast scans of JSON text that is not decoded yet: where its strings are, and whether it has a secret.

Everything here is a few passes in C over the bytes, whatever they are: no work is done for each escape, and work for
each string or bracket only up to a stated number. So the scans can run before anything of a caller's is decoded
(docs/architecture.md, Invariants 13).
"""

import codecs
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache

from gateway.domain import large_bytes

_INNERMOST = re.compile(rb"[\[{][^\[\]{}]*+[\]}]")
BRACKETS = re.compile(rb"[\[\]{}]++")
SLICE = 1 << 18
LEVELS_TAKEN_OUT = 6
SPACES = b" \t\r\n"
# What URL parsers ignore: control characters and spaces before a URL, tabs and line ends within it (WHATWG URL, 4.4).
_LEAD = rb"(?:[\x00-\x20]|\\[bfnrt]|\\u00(?:[01][0-9a-fA-F]|20))"
_GAP = rb"(?:[\t\n\r]|\\[nrt]|\\u000[9aAdD])"
_H, _T, _P = rb"(?:[hH]|\\u00[46]8)", rb"(?:[tT]|\\u00[57]4)", rb"(?:[pP]|\\u00[57]0)"
_HTTP = rb"%b(?:%b|%b(?:%b|%b(?:%b|%b)))" % (_H, _GAP, _T, _GAP, _T, _GAP, _P)
_MOST_LEADS = 32
_LONGEST_LETTER = 18
"""Bytes of a letter that is percent-encoded, if each of the three characters is written as a JSON escape."""
# A string that begins like an absolute URL in some spelling. One with more ignored characters in front, or with any
# between the first letters, is taken for one without looking at what follows them.
LINK = rb"%(lead)s{0,%(most)d}+%(http)s|%(lead)s{%(more)d}" % {
    b"lead": _LEAD, b"http": _HTTP, b"most": _MOST_LEADS, b"more": _MOST_LEADS + 1
}  # fmt: skip
LINK_START = re.compile(rb'"(?:%b)' % LINK)
LONGEST_LINK_START = 512
"""No match is longer: a quote, at most 33 characters in front, and 7 letters and gaps, each at most 6 bytes long."""

# In text that went through `mask`, where every `\u` is an escape. A high half without a low one after it, or a low half
# without a high one before it. One pass, without a step for each character.
LONE_HALF = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)


def mask(text: bytes) -> bytes:
    r"""Return JSON text in which every quote delimits a string, and every `\u` is an escape.

    Escaped backslashes and quotes are replaced by control characters, which JSON text cannot hold. All positions stay.
    """
    if b"\\" not in text:
        return text
    if len(text) <= SLICE:
        return _mask(text)
    pieces, start = [], 0
    # In pieces, for the sake of the other threads: 14 MB of backslashes take 50 ms.
    while start < len(text):
        end = end_of_slice(text, start)
        pieces.append(_mask(text[start:end]))
        start = end
    return large_bytes.joined(pieces)


def _mask(text: bytes) -> bytes:
    return text.replace(rb"\\", b"\0\0").replace(rb"\"", b"\1\1")


def unmask(masked: bytes) -> bytes:
    """Undo `mask`, for a text that held no control characters of its own."""
    if len(masked) <= SLICE:
        return _unmask(masked)
    pieces, start = [], 0
    while start < len(masked):
        part = masked[start : start + SLICE]
        if (last := part[-1:]) in (b"\0", b"\1") and (len(part) - len(part.rstrip(last))) % 2:
            part = masked[start : start + SLICE + 1]
        pieces.append(_unmask(part))
        start += len(part)
    return large_bytes.joined(pieces)


def _unmask(masked: bytes) -> bytes:
    return masked.replace(b"\0\0", rb"\\").replace(b"\1\1", rb"\"")


def holds(text: bytes, secrets: Iterable[bytes]) -> bool:
    r"""Return whether a text contains one of some ASCII secrets, in plain, in JSON escapes or percent-encoded.

    Parsing is not enough: it keeps one value of a duplicate name, but the bytes that are sent on contain both. An error
    may quote a URL or a form.
    """
    if len(text) > 2 * SLICE:
        return _holds_in_pieces(text, tuple(secrets))
    for secret in secrets:
        if secret in text:
            return True
    plain = text
    if b"\\" in text and (rb"\u00" in text or rb"\/" in text):
        # JSON's escapes but one are Python's, too, and Python decodes them in C.
        plain = mask(text).replace(rb"\/", b"/")
        if rb"\u00" in plain:
            # Where warnings are errors, an escape that is none raises one.
            with suppress(DeprecationWarning):
                plain = codecs.unicode_escape_decode(plain, "replace")[0].encode("latin-1", "replace")
        for secret in secrets:
            if secret in plain:
                return True
    return b"%" in plain and any(_holds_encoded(plain, secret) for secret in secrets)


def _holds_in_pieces(text: bytes, secrets: Sequence[bytes]) -> bool:
    """Do what `holds` does, in pieces that take some milliseconds each, for the sake of the other threads."""
    # No piece is longer than two slices.
    longest = min(_LONGEST_LETTER * max(map(len, secrets), default=0), SLICE - 1)
    start = 0
    while start < len(text):
        end = end_of_slice(text, start)
        if holds(text[start : end + longest], secrets):
            return True
        start = end
    return False


def _holds_encoded(text: bytes, secret: bytes) -> bool:
    letter, whole = _percent_encoded(secret)
    return letter.search(text) is not None and whole.search(text) is not None


@lru_cache(maxsize=64)
def _percent_encoded(secret: bytes) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    """Return patterns of one encoded letter of a secret, and of the secret with any of its letters encoded."""
    digits = {byte: f"{byte:02x}" for byte in secret}
    encoded = {byte: "%" + re.sub("[a-f]", lambda at: f"[{at[0]}{at[0].upper()}]", two) for byte, two in digits.items()}
    any_letter = "|".join(each.removeprefix("%") for each in encoded.values())
    # Atomic: a letter has one spelling at its place, so nothing is tried again.
    whole = "".join(f"(?>{re.escape(chr(byte))}|{encoded[byte]})" for byte in secret)
    return re.compile(f"%(?:{any_letter})".encode("latin-1")), re.compile(whole.encode("latin-1"))


def end_of_slice(body: bytes, start: int) -> int:
    """Return where a slice can end so that no escape of one character is cut."""
    end = start + SLICE
    part = body[start:end]
    return end + (len(part) - len(part.rstrip(b"\\"))) % 2


def contains(text: bytes, part: bytes) -> bool:
    """Do what `part in text` does, in pieces if the text is large. To find one letter takes no pieces."""
    if len(text) <= SLICE:
        return part in text
    return any(text.find(part, at, at + SLICE + len(part) - 1) >= 0 for at in range(0, len(text), SLICE))


def has_more_than(most: int, text: bytes, letter: bytes) -> bool:
    """Return whether a text has more than `most` of a letter. Hardly more than those are counted."""
    if len(text) <= SLICE:
        return text.count(letter) > most
    number = 0
    for at in range(0, len(text), SLICE):
        number += text.count(letter, at, at + SLICE)
        if number > most:
            return True
    return False


def link_starts(masked: bytes) -> Iterator[re.Match[bytes]]:
    """Find all matches of `LINK_START`, in pieces."""
    for low in range(0, len(masked), SLICE):
        high = low + SLICE
        for found in LINK_START.finditer(masked, low, high + LONGEST_LINK_START):
            if found.start() >= high:
                break
            yield found


def items_of(array: bytes) -> int:
    """Count the items of a large JSON array, piece by piece."""
    start = array.index(b"[") + 1
    last = array.rindex(b"]")
    depth = commas = 0
    is_inside = False
    is_empty = True
    while start < last:
        end = min(end_of_slice(array, start), last)
        part = array[start:end]
        is_empty = is_empty and not part.strip(SPACES)
        pieces = mask(part).split(b'"')
        outside = b'"'.join(pieces[is_inside::2]).translate(None, SPACES)
        is_inside ^= len(pieces) % 2 == 0
        # Arrays and objects that are here as a whole are taken out, from the inside.
        outside = outside.replace(b"{}", b"").replace(b"[]", b"")
        for _ in range(LEVELS_TAKEN_OUT):
            if b"[" in outside or b"{" in outside:
                outside = _INNERMOST.sub(b"", outside)
        at = 0
        # Between two runs of brackets the depth is the same.
        for found in BRACKETS.finditer(outside):
            commas += outside.count(b",", at, found.start()) if depth == 0 else 0
            depth += found[0].count(b"[") + found[0].count(b"{") - found[0].count(b"]") - found[0].count(b"}")
            at = found.end()
        commas += outside.count(b",", at) if depth == 0 else 0
        start = end
    return 0 if is_empty else commas + 1
