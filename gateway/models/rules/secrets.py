"""Secret inputs: which values of an input are secret, and the input without them (docs/architecture.md, Sharing).

Where the schema is known, each secret value is replaced by the text that Replicate shows in its place. Where it is not
known, any text can be secret: every text at the top level, and every list or object that contains texts, is replaced by
a keyed digest. Equal values have equal digests, so requests can still be compared; the values cannot be guessed from
them without the store's secret.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from json.encoder import encode_basestring_ascii
from typing import Any

import msgspec
from msgspec import Raw

from gateway.domain import large_bytes, large_json, surrogates
from gateway.domain.json_scan import contains
from gateway.models.rules.schema import Shape

REDACTED = "This value was redacted after being sent to the model."
"""What Replicate shows in place of a secret value (docs/replicate-api.md, Secret inputs)."""
DIGEST_PREFIX = "hmac-sha256:"

Digest = Callable[[bytes], str]
"""Returns the keyed digest (hex) of a value."""

SHORTEST_STRUCK = 6
"""A shorter value is not searched for in other texts: it could be part of any word."""
MOST_STRUCK = 16
"""Values of one input that are searched for: each is one pass over every document of the run. The first ones count
(docs/architecture.md, Secret inputs). All values are removed from the recorded input."""
LONGEST_STRUCK = 16 * 1024
"""A longer value is not searched for: no password or key is as long."""
_MOST_STRUCK_CHARACTERS = 64 * 1024
"""Characters of one input's values that are searched for. They are in memory until the run ends."""
_LONGEST_QUOTING = 64 * 1024
_SUSPECT = range(12, 4097)
"""Lengths of written values that are taken for a secret, or for several. Shorter ones could be words of a message."""
_SHORTEST_SUSPECT = 10

_HOLE = b"\xff\x00\xff"
"""Stands for a value while others are searched for. No UTF-8 text contains it."""
_TEXT_HOLE = "\udcff\udc00\udcff"
_STRING = re.compile(rb'("(?:[^"\\]++|\\.)*+")(\s*+:)?', re.DOTALL)
"""A string of JSON. With the colon behind it, it is a key."""
_WRITTEN_BY_MODELS = frozenset({"input", "output", "error", "logs", "metrics"})

_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_decode = msgspec.json.Decoder(float_hook=Raw).decode
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="deterministic").encode
_NOTHING = Raw(b"")
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_WHOLE = Shape(marks=frozenset({"secret"}), holds_secret=True)


class Redacted(msgspec.Struct, frozen=True):
    """An input without its secret values."""

    input: bytes
    values: tuple[str, ...] = ()
    """The secret values that are texts; empty where the schema is not known."""
    suspects: Mapping[str, Any] = {}
    """The values that can be secret or hold secrets, by name, where the schema is not known."""


def are_given(secrets: Mapping[str, Shape], given: bytes) -> bool:
    """Return whether an input (JSON) sets a secret value. In doubt, yes."""
    try:
        fields = _decode_fields(given)
        return any(_has(_decode(fields[name]), shape) for name, shape in secrets.items() if name in fields)
    except _UNREADABLE:
        return True


def redact(given: bytes, secrets: Mapping[str, Shape]) -> Redacted:
    """Return an input whose schema is known without its secret values. All other bytes stay unchanged."""
    if not secrets:
        return Redacted(given)
    try:
        fields = _decode_fields(given)
    except _UNREADABLE:
        return Redacted(_encode({}))
    values: list[str] = []
    is_changed = False
    for name, shape in secrets.items():
        if name not in fields:
            continue
        try:
            value = _decode(fields[name])
        except _UNREADABLE:
            value, shape = "", _WHOLE  # noqa: PLW2901 - what cannot be read is replaced as a whole
        if _has(value, shape):
            is_changed = True
            values += _texts(value, shape)
            fields[name] = Raw(_encode(_without(value, shape)))
    return Redacted(_encode(fields), _searched_for(values)) if is_changed else Redacted(given)


def _searched_for(values: list[str]) -> tuple[str, ...]:
    chosen: list[str] = []
    left = _MOST_STRUCK_CHARACTERS
    for value in dict.fromkeys(values):
        if len(value) <= min(LONGEST_STRUCK, left) and len(chosen) < MOST_STRUCK:
            chosen.append(value)
            left -= len(value)
    return tuple(chosen)


def digest_texts(given: bytes, digest: Digest) -> Redacted:
    """Return an input whose schema is not known with digests in place of what can be secret."""
    try:
        fields = _decode_fields(given)
    except _UNREADABLE:
        return Redacted(_encode({}))
    suspects: dict[str, Any] = {}
    is_changed = False
    for name, value in fields.items():
        if (text := digest_of(value, digest)) is None:
            continue
        if len(value) in _SUSPECT and len(suspects) < MOST_STRUCK:
            with suppress(*_UNREADABLE):
                suspects[name] = msgspec.json.decode(value)
        fields[name], is_changed = Raw(_encode(text)), True
    return Redacted(_encode(fields), suspects=suspects) if is_changed else Redacted(given)


def suspected_texts(suspects: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the texts in values that can be secret, at any depth, at most `MOST_STRUCK`."""
    found = (text for value in suspects.values() for text in _texts(value, _WHOLE))
    return tuple(islice((text for text in found if len(text) >= _SHORTEST_SUSPECT), MOST_STRUCK))


def digest_of(value: Raw, digest: Digest) -> str | None:
    """Return what stands for a value of an input whose schema is not known; `None` for one that holds no text."""
    written = bytes(value)
    if written[:1] not in (b'"', b"[", b"{") or b'"' not in written:
        return None
    if written[:1] == b'"' and b"\\" not in written:
        # Large files stand in data: URIs, which have no escapes: nothing as large is decoded.
        return DIGEST_PREFIX + digest(written[1:-1])
    try:
        decoded = msgspec.json.decode(written)
        form = decoded.encode() if isinstance(decoded, str) else _encode_sorted(decoded)
    except (*_UNREADABLE, UnicodeEncodeError):
        form = written
    return DIGEST_PREFIX + digest(form)


def is_digest(value: Raw) -> bool:
    """Return whether a value of a stored input is a digest."""
    return bytes(value).startswith(b'"' + DIGEST_PREFIX.encode())


def is_redacted(value: Raw) -> bool:
    """Return whether a value of an input contains the text that stands for a secret value."""
    return REDACTED.encode() in bytes(value)


def strike(text: bytes, values: tuple[str, ...]) -> bytes:
    """Replace secret values in a text, as they are and in the spellings of JSON strings."""
    return strike_spelled(text, spelled(values))


def strike_spelled(text: bytes, spellings: Sequence[bytes]) -> bytes:
    """Do as `strike`, with what `spelled` has returned for the values."""
    for spelling in spellings:
        text = text.replace(spelling, _HOLE)
    # Only now: the redaction text can contain a value.
    return text.replace(_HOLE, REDACTED.encode())


def strike_json(text: bytes, values: tuple[str, ...], *, with_keys: bool = True) -> bytes:
    """Replace secret values in the strings of a JSON text. Numbers and structure, which can look like one, stay.

    `with_keys`: the keys of objects count, too.
    """
    spellings, searched = spelled(values), _searched(values)
    if not any(contains(text, spelling) for spelling in spellings):
        return text

    def struck(found: re.Match[bytes]) -> bytes:
        written, colon = found.groups(b"")
        if (colon and not with_keys) or not any(spelling in written for spelling in spellings):
            return found[0]
        return _struck_string(written, searched) + colon

    return _STRING.sub(struck, text)


def _struck_string(written: bytes, searched: list[str]) -> bytes:
    try:
        decoded = msgspec.json.decode(written, type=str)
    except _UNREADABLE:
        return bytes(_encode(REDACTED))
    text = decoded
    for value in searched:
        text = text.replace(value, _TEXT_HOLE)
    return written if text is decoded or text == decoded else _encode(text.replace(_TEXT_HOLE, REDACTED))


def strike_answer(body: bytes, values: tuple[str, ...]) -> bytes:
    """Replace secret values in an error of upstream, which need not be JSON."""
    try:
        msgspec.json.decode(body, type=Raw)
    except _UNREADABLE:
        return strike(body, values)
    return strike_json(body, values, with_keys=False)


def strike_document(document: bytes, values: tuple[str, ...]) -> bytes:
    """Replace secret values in what a model writes to the document of a run, and in its input.

    All else stays: whatever the caller calls a secret, the status, the times and the numbers can be read.
    """
    if not any(contains(document, spelling) for spelling in spelled(values)):
        return document
    fields = surrogates.split(document)
    for name in _WRITTEN_BY_MODELS & fields.keys():
        fields[name] = Raw(strike_json(large_bytes.copied(fields[name]), values, with_keys=name != "metrics"))
    return large_json.encode(fields)


def _searched(values: tuple[str, ...]) -> list[str]:
    """Return the values that are searched for, longest first: one can be a part of another."""
    return sorted((value for value in values if len(value) >= SHORTEST_STRUCK), key=len, reverse=True)


def spelled(values: tuple[str, ...]) -> list[bytes]:
    """Return the spellings of secret values that are searched for, longest first."""
    return sorted({each for value in _searched(values) for each in _spellings(value)}, key=len, reverse=True)


def are_quoted(document: bytes, values: tuple[str, ...]) -> bool:
    """Return whether the error or the end of the logs of a run's document contain one of the values."""
    try:
        fields = surrogates.split_strictly(document)
    except _UNREADABLE:
        return True
    spellings = [spelling for value in values for spelling in _spellings(value)]
    error, logs = (memoryview(fields.get(name, _NOTHING)) for name in ("error", "logs"))
    texts = bytes(error[:_LONGEST_QUOTING]), bytes(logs[-_LONGEST_QUOTING:])
    return any(spelling in text for text in texts for spelling in spellings)


def _spellings(value: str) -> set[bytes]:
    """Return the ways in which encoders of JSON write a text: few, and one for most values."""
    spellings = {str(_encode(value)[1:-1], "utf-8"), encode_basestring_ascii(value)[1:-1]}
    spellings |= {each.replace("/", "\\/") for each in spellings}
    # As Go does, and upstream's edge.
    spellings |= {each.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e") for each in spellings}
    return {each.encode(errors="replace") for each in (value, *spellings)}


def _has(value: Any, shape: Shape) -> bool:
    if value is None or not shape.holds_secret:
        return False
    return shape.is_secret or any(_has(each, part) for each, part in _parts(value, shape))


def _parts(value: Any, shape: Shape) -> Iterator[tuple[Any, Shape]]:
    if isinstance(value, list) and shape.items is not None:
        yield from ((each, shape.items) for each in value)
    elif isinstance(value, dict):
        for name, each in value.items():
            part = shape.properties.get(name, shape.others)
            if part is not None:
                yield each, part


def _without(value: Any, shape: Shape) -> Any:
    if value is None or not shape.holds_secret:
        return value
    if shape.is_secret:
        # A list keeps its length: each of its values is secret.
        return [_without(each, shape) for each in value] if isinstance(value, list) else REDACTED
    if isinstance(value, list) and shape.items is not None:
        return [_without(each, shape.items) for each in value]
    if isinstance(value, dict):
        others = shape.others
        return {
            name: each if (part := shape.properties.get(name, others)) is None else _without(each, part)
            for name, each in value.items()
        }
    return value


def _texts(value: Any, shape: Shape) -> Iterator[str]:
    if value is None or not shape.holds_secret:
        return
    if not shape.is_secret:
        for each, part in _parts(value, shape):
            yield from _texts(each, part)
        return
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, list):
            left += each
        elif isinstance(each, dict):
            left += each.values()
