r"""Lone surrogates: escapes such as `\ud83d` without their other half.

JSON's grammar allows them (RFC 8259, 8.2), and JavaScript writes them for a text that was cut inside an emoji. But they
are no characters, and msgspec refuses a body with one. In requests they are replaced by U+FFFD, as upstream (Go) does.
Upstream's own bodies keep them, byte for byte.
"""

import re

import msgspec
from msgspec import Raw

_decode = msgspec.json.Decoder(dict[str, Raw]).decode

# One match consumes everything up to the next lone surrogate, without backtracking: the time is linear.
_NEXT_HALF = re.compile(
    rb"((?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB]..\\u[dD][c-fC-F]..)*+)(\\u[dD][89a-fA-F][0-9a-fA-F]{2})",
    re.DOTALL,
)
_STAND_IN = re.compile(rb"\\u[eE][0-9a-fA-F]{3}")


def without_halves(body: bytes) -> bytes:
    """Replace every lone surrogate by U+FFFD; return the same object if there is none."""
    if b"\\ud" not in body and b"\\uD" not in body:  # much faster than the pattern
        return body
    pieces, end = [], 0
    while match := _NEXT_HALF.match(body, end):
        pieces += [match[1], rb"\ufffd"]
        end = match.end()
    return b"".join([*pieces, body[end:]]) if pieces else body


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
    """Replace every lone surrogate by an escape that does not occur in the body; also return the replacements."""
    taken = set(_STAND_IN.findall(body))
    free = (name for number in range(0xE000, 0xF000) if (name := rb"\u%x" % number) not in taken)
    pieces: list[bytes] = []
    stand_ins: dict[bytes, bytes] = {}
    end = 0
    while match := _NEXT_HALF.match(body, end):
        if match[2] not in stand_ins:
            stand_in = next(free, None)
            if stand_in is None:
                return body, {}
            stand_ins[match[2]] = stand_in
        pieces += [match[1], stand_ins[match[2]]]
        end = match.end()
    return b"".join([*pieces, body[end:]]), {stand_in: half for half, stand_in in stand_ins.items()}


def _unmask(value: bytes, halves: dict[bytes, bytes]) -> bytes:
    return _STAND_IN.sub(lambda match: halves.get(match[0], match[0]), value)
