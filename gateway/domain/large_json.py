r"""Splits very large JSON objects at their top level, piece by piece, and writes them.

The decoder goes through a text in one call, during which nothing else in the process runs: up to 120 ms for 64 MiB.
So a very large text is cut where a token begins or ends, and each piece is decoded alone, completed by what was open
before it and is open after it: of `{"a": [1, 2]}` the pieces can be `{"a":` and `[1, 2]}`, which are completed to
`{"a":""}` and `{"":[1, 2]}`. The whole is valid if every completed piece is, so the decoder finds the same errors.

No step works on more than some times `STEP` bytes.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Final

import msgspec
from msgspec import Raw

from gateway.domain import large_bytes
from gateway.domain.json_scan import SPACES, has_more_than, mask

WHOLE: Final = 8 * 1024 * 1024
"""Smaller texts are decoded in one call."""
STEP: Final = 256 * 1024
MOST_FIELDS: Final = 10_000
"""A large object of more fields is refused: to decode so many in one call takes long, too."""
_MOST_AT_ONCE: Final = 50_000
"""Items of an array that are decoded in one call."""
_DEEPEST: Final = 100_000
"""Brackets that are open at once in a text that is not checked. In others, the decoder refuses fewer."""
_MOST_STEPS: Final = 300_000
"""Marks that are looked at in a text that is not checked. Others have few, unless they have many fields."""
_ROUNDS: Final = 8
"""Levels of brackets that are taken out of a piece in one call each."""

_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_array = msgspec.json.Decoder(list[Raw]).decode
_decode_name = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode
_check = msgspec.json.Decoder(Raw).decode

_QUOTE: Final = b'"'
_OPENING: Final = b"[{"
_CLOSING: Final = b"]}"
_TO_CLOSING: Final = bytes.maketrans(_OPENING, _CLOSING)
_NOT_NESTING: Final = bytes(each for each in range(256) if each not in b'"[]{}')
_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
SECOND_HALF: Final = re.compile(rb"\\u[dD][c-fC-F]")
"""Begins the second escape of a character that JSON writes as two."""
_SCALAR: Final = re.compile(rb'[^ \t\r\n"\[\]{},:]*+')
_LONGEST_CHARACTER: Final = 4
_LONGEST_ESCAPE: Final = len(rb"\ufffd")
_FIRST_OF_CHARACTER: Final = 0xC0
_RUNS: Final = re.compile(rb"[\[{]++|[\]}]++")
_MARKS: Final = (b",", b":", b"[", b"]", b"{", b"}")

# In masked text, where a quote begins or ends a string. Arrays and objects without others in them are skipped at once.
_PLAIN = rb'[^"\[\]{}]++|"[^"]*+"'
_NEXT_AT_TOP: Final = re.compile(rb'(?:[^"\[\]{},:]++|"[^"]*+")*+([\[\]{},:])')
_NEXT_BRACKET: Final = re.compile(
    rb"(?:%(plain)b|\[(?:%(plain)b)*+\]|\{(?:%(plain)b)*+\})*+([\[\]{}])" % {b"plain": _PLAIN}
)


def split(document: bytes, names: Collection[str] | None = None) -> dict[str, Raw]:
    """Return what decoding to `dict[str, Raw]` returns, its values as views of the document. Raise the same errors.

    With `names`, return only those fields. Without, an object of more than `MOST_FIELDS` is refused with
    `ValidationError`.
    """
    start = after_spaces(document, 0)
    if names is None and len(document) < WHOLE and not has_more_than(MOST_FIELDS, document, b":"):
        return _decode_object(document)
    if document[start : start + 1] != b"{":
        return _decode_object(document)
    view = memoryview(document)
    fields: dict[str, Raw] = {}
    marks = _marks(document, start)
    # `{ name : value , name : value }`
    before = next(marks, 0)
    for number, (colon, after) in enumerate(zip(marks, marks, strict=False)):
        if names is None and number == MOST_FIELDS:
            raise msgspec.ValidationError(f"Object has more than {MOST_FIELDS} fields")
        name = _decode_name(document[before + 1 : colon])
        if names is None or name in names:
            fields[name] = Raw(view[after_spaces(document, colon + 1) : _before_spaces(document, after)])
        before = after
    return fields


def decode_string(document: bytes, start: int, end: int) -> str:
    """Return the JSON string that is at a place. Raise the decoder's errors."""
    if end - start <= large_bytes.WHOLE:
        return _decode_name(document[start:end])
    pieces: list[str] = []
    if end_of_string(document, start, lambda piece: pieces.append(_decode_name(piece))) != end:
        raise msgspec.DecodeError("JSON is malformed: trailing characters")
    return "".join(pieces)


def find(document: bytes, name: bytes) -> tuple[int, int] | None:
    """Return where the value of a field begins and ends, of the first with that name; `None` if there is none.

    The name is given as it is written, with its quotes. The document is not checked, and not gone through to the end if
    it has more than `MOST_FIELDS` fields, or so many brackets that it is hardly JSON.
    """
    start = after_spaces(document, 0)
    if document[start : start + 1] != b"{":
        return None
    marks = _marks(document, start, check=None)
    before = next(marks, 0)
    with suppress(msgspec.DecodeError):
        for colon, after in islice(zip(marks, marks, strict=False), MOST_FIELDS):
            low, high = after_spaces(document, before + 1), _before_spaces(document, colon)
            if high - low == len(name) and document[low:high] == name:
                return after_spaces(document, colon + 1), _before_spaces(document, after)
            before = after
    return None


def items(array: bytes) -> Iterator[Raw]:
    """Yield what decoding to `list[Raw]` returns, the items as views of the array. Raise the same errors.

    Of a large array they are raised where they are found. To free a list of a million items takes long, too.
    """
    start = after_spaces(array, 0)
    is_small = len(array) < WHOLE and not has_more_than(_MOST_AT_ONCE, array, b",")
    if is_small or array[start : start + 1] != b"[":
        return iter(_decode_array(array))
    return _items(array, start)


def _items(array: bytes, start: int) -> Iterator[Raw]:
    view = memoryview(array)
    marks = _marks(array, start)
    before = next(marks, 0)
    for after in marks:
        low = after_spaces(array, before + 1)
        if low < after:
            yield Raw(view[low : _before_spaces(array, after)])
        before = after


def encode_items(items: Sequence[Raw]) -> Raw:
    """Write an array as the encoder does."""
    pieces: list[bytes | memoryview] = []
    for item in items:
        pieces += [b"," if pieces else b"[", memoryview(item)]
    return Raw(large_bytes.joined([*pieces, b"]"]) if pieces else b"[]")


def encode(fields: Mapping[str, Raw]) -> bytes:
    """Write an object as the encoder does."""
    sizes = map(len, map(memoryview, fields.values()))  # type: ignore[arg-type] # a Raw is a buffer
    if sum(sizes) <= large_bytes.WHOLE:
        return _encode(fields)
    pieces: list[bytes | memoryview] = []
    for name, value in fields.items():
        pieces += [b"," if pieces else b"{", _encode(name), b":", memoryview(value)]
    return large_bytes.joined([*pieces, b"}"])


def _marks(document: bytes, at: int, check: Callable[[bytes], object] | None = _check) -> Iterator[int]:
    """Yield where the brackets, colons and commas of the top level are. Raise the decoder's errors, if it is checked.

    `stack` has the brackets that are open at `at`, `last` says what is before it: a bracket, comma or colon; a quote
    for a name, or a closing bracket for any value.
    """
    stack = last = b""
    steps = iter(range(_MOST_STEPS)) if check is None else None
    while at < len(document):
        part = document[at : at + STEP]
        is_end = at + STEP >= len(document)
        masked = mask(part)
        size = len(part) if is_end else _end_of_last_mark(masked)
        if size == 0:
            at, last = _pass_long(document, at, stack, last, check)
        else:
            masked = masked[:size]
            lowest, after = _nested(stack, masked)
            ending = b"" if is_end else part[size - 1 : size]
            if check is not None:
                check(b"".join((_opened(stack, last), part[:size], b"" if is_end else _closed(after, ending))))
            if lowest <= 1:
                yield from (at + mark for mark in _marks_in(masked, len(stack), steps))
            if len(after) > _DEEPEST:
                raise msgspec.DecodeError("JSON is malformed: too many brackets")
            at, stack, last = at + size, after, ending
        at = after_spaces(document, at)
    if stack:
        raise msgspec.DecodeError("Input data was truncated")


def _end_of_last_mark(masked: bytes) -> int:
    """Return the place after the last bracket, comma or colon that is in no string; 0 if there is none."""
    high = masked.rfind(_QUOTE) if masked.count(_QUOTE) % 2 else len(masked)
    while True:
        quote = masked.rfind(_QUOTE, 0, high)
        found = max(masked.rfind(mark, quote + 1, high) for mark in _MARKS)
        if found >= 0 or quote < 0:
            return found + 1
        high = masked.rfind(_QUOTE, 0, quote)


def _nested(stack: bytes, masked: bytes) -> tuple[int, bytes]:
    """Return how few brackets are open in a piece at the least, and which are open after it."""
    left = b"".join(masked.translate(None, _NOT_NESTING).split(_QUOTE)[::2])
    for _ in range(_ROUNDS):
        size = len(left)
        left = left.replace(b"[]", b"").replace(b"{}", b"")
        if len(left) > size * 7 // 8:
            # Few are next to each other; what is left are long runs.
            break
    closed, opened = 0, bytearray()
    for run in _RUNS.findall(left):
        if run[0] in _OPENING:
            opened += run
        else:
            closed += max(0, len(run) - len(opened))
            del opened[max(0, len(opened) - len(run)) :]
    lowest = max(0, len(stack) - closed)
    return lowest, stack[:lowest] + bytes(opened)


def _marks_in(masked: bytes, depth: int, steps: Iterator[int] | None) -> Iterator[int]:
    """Yield where the marks of the top level are in a piece, before which so many brackets are open."""
    at = 0
    while found := (_NEXT_AT_TOP if depth <= 1 else _NEXT_BRACKET).match(masked, at):
        if steps is not None and next(steps, None) is None:
            raise msgspec.DecodeError("JSON is malformed: too many brackets")
        mark, at = found[1], found.end()
        depth -= mark in _CLOSING
        if depth == 0 or (depth == 1 and mark in b",:"):
            yield at - 1
        depth += mark in _OPENING


def _opened(stack: bytes, last: bytes) -> bytes:
    """Return a beginning for a piece."""
    is_object = stack[-1:] == b"{"
    inner = b""
    if last == b",":
        inner = b'"":"",' if is_object else b'"",'
    elif last == b":":
        inner = b'"":'
    elif last == _QUOTE:
        inner = b'""'
    elif last and last in _CLOSING:
        inner = b'"":""' if is_object else b'""'
    return stack[:-1].replace(b"{", b'{"":') + stack[-1:] + inner


def _closed(stack: bytes, last: bytes) -> bytes:
    """Return an end for a piece."""
    inner = b""
    if last == b",":
        inner = b'"":""' if stack[-1:] == b"{" else b'""'
    elif last == b":":
        inner = b'""'
    return inner + stack[::-1].translate(_TO_CLOSING)


def _pass_long(
    document: bytes, at: int, stack: bytes, last: bytes, check: Callable[[bytes], object] | None
) -> tuple[int, bytes]:
    """Check a string, a number or a word, with which more than one step begins. Return its end, and what it was."""
    is_name = stack[-1:] == b"{" and last in (b"{", b",")
    if document[at : at + 1] == _QUOTE:
        at = end_of_string(document, at, check)
        token = b'""'
    else:
        at, token = _scalar(document, at)
    if check is not None:
        check(b"".join((_opened(stack, last), token, b':""' if is_name else b"", _closed(stack, b""))))
    return at, _QUOTE if is_name else b"]"


def end_of_string(document: bytes, at: int, check: Callable[[bytes], object] | None = None) -> int:
    """Return the end of the string that begins at a place. Raise `DecodeError` if it has none or is refused."""
    low = at + 1
    while True:
        high = next_boundary(document, low)
        is_end = document[high : high + 1] == _QUOTE
        if high == low and not is_end:
            raise msgspec.DecodeError("JSON is malformed: invalid string")
        if not is_end and SECOND_HALF.match(document, high):
            # Stays with the half before it.
            high += len(rb"\udc00")
        if check is not None:
            check(_QUOTE + document[low:high] + _QUOTE)
        if is_end:
            return high + 1
        low = high


def next_boundary(document: bytes, at: int) -> int:
    """Return where a string ends, or a place near `at + STEP` that is in no escape; `at` if it is invalid."""
    masked = mask(document[at : at + STEP])
    if (quote := masked.find(_QUOTE)) >= 0:
        return at + quote
    escape = masked.rfind(b"\\", max(0, len(masked) - _LONGEST_ESCAPE + 1))
    is_cut = escape >= 0 and masked[escape + 1 : escape + 2] in (b"", b"u")
    end = at + (escape if is_cut else len(masked))
    if end - at > _LONGEST_CHARACTER and document[end : end + 1] >= b"\x80":
        # Nor in a character, where the text is UTF-8. Elsewhere, what is before can be the end of an escape.
        for before in range(end, end - _LONGEST_CHARACTER, -1):
            if document[before] >= _FIRST_OF_CHARACTER:
                return before
    return end


def _scalar(document: bytes, at: int) -> tuple[int, bytes]:
    """Return the end of a number or word, and one that is valid if this one is: steps of digits become one digit."""
    token: list[bytes] = []
    while found := _SCALAR.match(document, at, at + STEP):
        part = found[0]
        if not part:
            break
        token.append(b"0" if token and part.isdigit() else part)
        at = found.end()
    return at, b"".join(token)


def after_spaces(document: bytes, at: int) -> int:
    """Return the place of the first character from a place on that is no white space."""
    while found := _SPACE.match(document, at, at + STEP):
        at = found.end()
        if len(found[0]) < STEP:
            break
    return at


def _before_spaces(document: bytes, end: int) -> int:
    while document[end - 1] in SPACES:
        low = max(0, end - STEP)
        end = low + len(document[low:end].rstrip(SPACES))
    return end
