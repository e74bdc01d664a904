r"""Lone surrogates: escapes such as `\ud83d` without their other half.

JSON's grammar allows them (RFC 8259, 8.2), and JavaScript writes them for a text that was cut inside an emoji. But they
are no characters, and msgspec refuses a body with one. In requests they are replaced by U+FFFD, as upstream (Go) does.
Upstream's own bodies keep them, byte for byte.
"""

import re

import msgspec
from msgspec import Raw

from gateway.domain.json_scan import LONE_HALF, mask, unmask

_decode = msgspec.json.Decoder(dict[str, Raw]).decode

_ESCAPED_LETTER = re.compile(rb"\\u[eE][0-9a-fA-F]{3}")
_INSTEAD = rb"\\ufffd"
_NOT_IN_JSON = (b"\0", b"\1")


def without_halves(body: bytes) -> bytes:
    """Replace every lone surrogate by U+FFFD; return the same object if there is none."""
    if rb"\ud" not in body and rb"\uD" not in body:
        return body
    if any(code in body for code in _NOT_IN_JSON):
        return body  # which nobody can read anyway
    replaced, number = LONE_HALF.subn(_INSTEAD, mask(body))
    return unmask(replaced) if number else body


def split(body: bytes) -> dict[str, Raw]:
    """Split a JSON object's top level. The bytes of its values stay unchanged, including lone surrogates.

    Raise the decoder's errors if the body is no JSON object.
    """
    try:
        return _decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        masked, halves = _mask(body)
        if not halves:
            raise
        return {name: Raw(_unmask(bytes(value), halves)) for name, value in _decode(masked).items()}


def _mask(body: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """Replace every lone surrogate by an escape that does not occur in the body; also return the replacements.

    There are no replacements if the lone surrogates are of too many kinds for that.
    """
    if any(code in body for code in _NOT_IN_JSON):
        return body, {}
    masked = mask(body)
    kinds = set(LONE_HALF.findall(masked))
    taken = set(_ESCAPED_LETTER.findall(body))
    free = (name for number in range(0xE000, 0xF000) if (name := rb"\u%x" % number) not in taken)
    stand_ins = dict(zip(kinds, free, strict=False))
    if len(stand_ins) < len(kinds):
        return body, {}
    stood = LONE_HALF.sub(lambda match: stand_ins[match[0]], masked)
    return unmask(stood), {stand_in: half for half, stand_in in stand_ins.items()}


def _unmask(value: bytes, halves: dict[bytes, bytes]) -> bytes:
    return _ESCAPED_LETTER.sub(lambda match: halves.get(match[0], match[0]), value)
