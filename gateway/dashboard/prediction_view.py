"""The input and output of a prediction as text, and the links in it."""

from contextlib import suppress
from typing import Any, Final

import msgspec

from gateway.operations.prediction_log import PredictionData

MOST_TEXT: Final = 20_000
"""Characters shown of each value. The API has all of it."""
_MOST_DECODED: Final = 128 * 1024
"""Bytes of JSON that are decoded. Of a longer value, the beginning is shown as it is."""
_NULL: Final = b"null"
_DATA_URI: Final = "data:"
_OUTPUT: Final = "output"


class ShownValue(msgspec.Struct, frozen=True):
    """A value as text."""

    text: str
    is_cut: bool = False
    links: tuple[str, ...] = ()
    """The http and https links in it, in their order."""


def texts_of(data: PredictionData | None) -> dict[str, ShownValue]:
    """Return the values that are not null, as indented JSON or plain text."""
    if data is None:
        return {}
    found = {name: _bytes_of(value) for name, value in msgspec.structs.asdict(data).items()}
    return {name: _shown(raw, joins=name == _OUTPUT) for name, raw in found.items() if raw != _NULL}


def _bytes_of(value: Any) -> bytes:
    return bytes(value) if isinstance(value, msgspec.Raw) else msgspec.json.encode(value)


def _shown(raw: bytes, *, joins: bool) -> ShownValue:
    if len(raw) <= _MOST_DECODED:
        # Replicate's own bodies can have half a surrogate pair, a number out of range, or any depth.
        with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _decoded(raw, joins=joins)
    # A character has at most four bytes.
    text = raw[: 4 * MOST_TEXT + 1].decode(errors="replace")
    return ShownValue(text[:MOST_TEXT], is_cut=len(text) > MOST_TEXT)


def _decoded(raw: bytes, *, joins: bool) -> ShownValue:
    plain = _shortened(msgspec.json.decode(raw))
    if joins and _is_text_in_parts(plain):
        plain = "".join(plain)
    text = plain if isinstance(plain, str) else msgspec.json.format(msgspec.json.encode(plain), indent=2).decode()
    return ShownValue(text[:MOST_TEXT], len(text) > MOST_TEXT, tuple(_links(plain)))


def _shortened(value: Any) -> Any:
    """Return a value with its data URIs cut: they are files, not text."""
    match value:
        case str() if value.startswith(_DATA_URI) and len(value) > 100:
            return f"{value[:60]}… ({len(value):,} characters)"
        case list():
            return [_shortened(each) for each in value]
        case dict():
            return {name: _shortened(each) for name, each in value.items()}
        case _:
            return value


def _is_text_in_parts(value: Any) -> bool:
    """Whether it is the output of a language model: a list of texts, none of which is a file."""
    if not isinstance(value, list) or not value or not all(isinstance(each, str) for each in value):
        return False
    return not _links(value) and not any(each.startswith(_DATA_URI) for each in value)


def _links(value: Any) -> list[str]:
    match value:
        case str() if value.startswith(("https://", "http://")) and not any(map(str.isspace, value)):
            return [value]
        case list():
            return [link for each in value for link in _links(each)][:100]
        case dict():
            return [link for each in value.values() for link in _links(each)][:100]
        case _:
            return []
