r"""Half surrogates: escapes like `\ud83d` that lack their other half.

JSON's grammar admits them (RFC 8259, 8.2) and JavaScript writes them when a text was cut inside an emoji, but they are
no character, and the decoder refuses the whole body. Requests are read as upstream's Go reads them, with U+FFFD in
their place. Upstream's own bodies keep them, byte for byte.
"""

import re

import msgspec
from msgspec import Raw

_decode = msgspec.json.Decoder(dict[str, Raw]).decode

# Everything up to the next half, however much, in one match: the time is linear, and nothing is remembered on the way.
_NEXT_HALF = re.compile(
    rb"((?:[^\\]++|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB]..\\u[dD][c-fC-F]..)*+)(\\u[dD][89a-fA-F][0-9a-fA-F]{2})",
    re.DOTALL,
)
_STAND_IN = re.compile(rb"\\u[eE][0-9a-fA-F]{3}")


def without_halves(body: bytes) -> bytes:
    """Put U+FFFD in the place of every half; a body without any is returned as it is."""
    pieces, end = [], 0
    while match := _NEXT_HALF.match(body, end):
        pieces += [match[1], rb"\ufffd"]
        end = match.end()
    return b"".join([*pieces, body[end:]]) if pieces else body


def split(body: bytes) -> dict[str, Raw]:
    """Take an object's top level apart, the bytes of its values unchanged, halves and all.

    Raise what the decoder raises for what is no object.
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
    """Put an escape that occurs nowhere else in the place of every half; return also which stands for which."""
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
