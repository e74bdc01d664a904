r"""Lone surrogates: escapes such as `\ud83d` without their other half.

JSON's grammar allows them (RFC 8259, 8.2), and JavaScript writes them for a text that was cut inside an emoji. But they
are no characters, and msgspec refuses a body with one. In requests they are replaced by U+FFFD, as upstream (Go) does.
Upstream's own bodies keep them, byte for byte.
"""

import re
from collections.abc import Callable, Iterator
from itertools import islice

import msgspec
from msgspec import Raw

from gateway.domain import large_bytes, large_json
from gateway.domain.json_scan import LONE_HALF, contains, mask, unmask

LARGE = 1 << 18
"""Bytes of a body that is worth remembering."""
_STEP = 1 << 15
"""Bytes in which escapes are replaced in one call: they may be all escapes."""
MAX_HALVES = 10_000
"""Lone surrogates of a body that are kept as they are."""
_last: list[tuple[bytes, dict[str, Raw]] | None] = [None]

_decode = msgspec.json.Decoder(dict[str, Raw]).decode

# Before an escape that is no second half, or far behind any escape. In masked text each backslash begins an escape.
_CUT = re.compile(rb"(?=\\)(?!(?<=\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F])|(?<=[^\\]{12})")
_ESCAPED_LETTER = re.compile(rb"\\u[eE][0-9a-fA-F]{3}")
_INSTEAD = rb"\\ufffd"
_NOT_IN_JSON = (b"\0", b"\1")


def without_halves(body: bytes) -> bytes:
    """Replace every lone surrogate by U+FFFD; return the same object if there is none."""
    if not _may_have_halves(body):
        return body
    if any(code in body for code in _NOT_IN_JSON):
        return body  # which nobody can read anyway
    masked = mask(body)
    replaced = _sub(LONE_HALF, _INSTEAD, masked)
    return body if replaced == masked else unmask(replaced)


def _may_have_halves(body: bytes) -> bool:
    return contains(body, rb"\ud") or contains(body, rb"\uD")


def _sub(pattern: re.Pattern[bytes], instead: bytes | Callable[[re.Match[bytes]], bytes], text: bytes) -> bytes:
    """Replace the escapes that match a pattern, in pieces, for the sake of the other threads."""
    return large_bytes.joined(pattern.sub(instead, piece) for piece in _pieces(text))


def _pieces(text: bytes) -> Iterator[bytes]:
    """Cut a text where no escape, and no pair of escapes, is cut. In it, each backslash before a letter begins one."""
    start = 0
    while start < len(text):
        cut = _CUT.search(text, start + _STEP)
        end = cut.start() if cut is not None else len(text)
        yield text[start:end]
        start = end


def has_many_halves(body: bytes) -> bool:
    """Return whether a large text has more lone surrogates than are worth being kept as they are."""
    if len(body) < LARGE or not _may_have_halves(body):
        return False
    halves = (half for piece in _pieces(mask(body)) for half in LONE_HALF.finditer(piece))
    return next(islice(halves, MAX_HALVES, None), None) is not None


def split(body: bytes) -> dict[str, Raw]:
    """Split a JSON object's top level. The bytes of its values stay unchanged, including lone surrogates.

    A large body is read once, although many parts of the gateway ask for a part of it: the last one is remembered.
    Raise the decoder's errors if the body is no JSON object.
    """
    try:
        return _decode(body) if len(body) < LARGE else split_strictly(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        masked, halves = _mask(body)
        if not halves:
            raise
        return {name: Raw(_unmask(value, halves)) for name, value in large_json.split(masked).items()}


def split_strictly(body: bytes) -> dict[str, Raw]:
    """Do what `split` does, but also raise `DecodeError` for a body with lone surrogates."""
    if len(body) < LARGE:
        return _decode(body)
    last = _last[0]
    if last is None or last[0] is not body:
        # Its values are views of the body, not copies.
        last = _last[0] = (body, large_json.split(body))
    return dict(last[1])


def forget() -> None:
    """Forget the last large body."""
    _last[0] = None


def _mask(body: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Replace every lone surrogate by an escape that does not occur in the body; also return the replacements.

    There are no replacements if the lone surrogates are of too many kinds for that.
    """
    if any(code in body for code in _NOT_IN_JSON):
        return body, {}
    masked = mask(body)
    kinds = {half for piece in _pieces(masked) for half in LONE_HALF.findall(piece)}
    taken = {letter for piece in _pieces(body) for letter in _ESCAPED_LETTER.findall(piece)}
    free = (name for number in range(0xE000, 0xF000) if (name := rb"\u%x" % number) not in taken)
    stand_ins = dict(zip(kinds, free, strict=False))
    if len(stand_ins) < len(kinds):
        return body, {}
    stood = _sub(LONE_HALF, lambda match: stand_ins[match[0]], masked)
    return unmask(stood), {stand_in: half for half, stand_in in stand_ins.items()}


def _unmask(value: Raw, halves: dict[bytes, bytes]) -> bytes:
    return _sub(_ESCAPED_LETTER, lambda match: halves.get(match[0], match[0]), large_bytes.copied(value))
