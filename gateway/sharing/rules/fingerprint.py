"""The identity of a deterministic request: target, canonical input, sharing scope (docs/architecture.md, Sharing).

Two spellings of one request have one fingerprint; any other difference gives two. Equal are:
- keys in any order, whitespace, escapes that decode to the same text (no Unicode normalisation: other code points are
  another text), a repeated key and its last value (both of upstream's parsers take the last);
- an integral number in any form where the schema says number or integer: 1, 1.0, 1e0. Elsewhere 1 and 1.0 differ, since
  a model may print them. Other numbers are equal by exact decimal value, so that no digit is ever lost. The sign of a
  zero (-0.0) is kept, but where the schema says integer: integers have none;
- an input that is absent and one that is given its default; a given null is not absent;
- a file by its content (bytes, media type and extension), however it was sent: a link in `files`, or a data: URI where
  text may be a file's address. Where the schema says that an input is plain text, a data: URI is text like any other.

The canonical form is JSON with sorted keys in which two sorts of token stand outside of quotes where JSON allows
neither: `file:[…]` and normalised numbers. No caller's text or object can therefore be taken for one.
"""

import hmac
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Raw

from gateway.domain import text_links
from gateway.domain.file_content import FileContent
from gateway.models.rules.schema import InputSchema, Shape
from gateway.sharing.rules import external_links
from gateway.sharing.rules.data_uris import content_of
from gateway.sharing.rules.external_links import LinkPattern

VERSION = 2
"""Of the rules above: another number parts all that was stored under others."""
MAX_DEPTH = 128
MAX_VALUES = 20_000
"""Bound on the work. In a large input the commas and brackets of nested texts count as values."""

_TOO_DEEP = f"the input is nested more than {MAX_DEPTH} deep"
_LONGEST_LINK = 4096
_QUOTE = ord('"')
_SHORT = 10**18
_MOST_ZEROS = 18

# Numbers with a fraction or an exponent come as they are written; integers are exact already.
_decode = msgspec.json.Decoder(float_hook=Raw).decode
_decode_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_encode = msgspec.json.Encoder(order="deterministic").encode
_ANYTHING = Shape()
_NO_SHAPES: Mapping[str, Shape] = {}
_UNREADABLE = (RecursionError, msgspec.MsgspecError, UnicodeDecodeError)


class Input:
    """A create's input, decoded once. Its canonical forms are written from it."""

    __slots__ = ("_contents", "_fields", "_files", "_may_link")

    def __init__(self, text: bytes, files: Mapping[str, FileContent], *, may_link: bool | None = None) -> None:
        """Decode an input. `files` gives the content of what a link in it leads to.

        `may_link` is what `text_links.may_be_in` says, if that is known.

        Raise `ValueError` for what is no JSON object, or is too deep, or holds too much, to be compared.
        """
        try:
            if len(text) > MAX_VALUES and _most_values(text) > MAX_VALUES:
                raise ValueError(f"the input holds more than {MAX_VALUES} values")
            fields = _decode(text)
        except _UNREADABLE as exc:
            raise _unreadable(exc) from exc
        if not isinstance(fields, dict):
            raise ValueError("the input is not a JSON object")  # noqa: TRY004 - a value of JSON, not of Python
        self._fields: dict[str, Any] = fields
        self._files = files
        self._contents: dict[str, FileContent | None] = {}
        self._may_link = text_links.may_be_in(text) if may_link is None else may_link

    def has_external_link(
        self, schema: InputSchema | None, plain: frozenset[str], immutable: Sequence[LinkPattern]
    ) -> bool:
        """Return whether the output may depend on what an external link leads to (`external_links`).

        Inputs in `plain` are not looked at. Defaults of the schema count for inputs that are not given.
        """
        values: list[Any] = []
        if self._may_link:
            values += (value for name, value in self._fields.items() if name not in plain)
        if schema is not None and schema.linked_defaults:
            unset = schema.linked_defaults - plain - self._fields.keys()
            if unset:
                defaults = _defaults_of(schema)
                values += (defaults[name] for name in unset)

        def is_known(text: str) -> bool:
            return self._content(text) is not None or external_links.is_immutable(text, immutable)

        return bool(values) and text_links.find(values, is_known) is not None

    def canonical(self, schema: InputSchema | None, ignore: frozenset[str] = frozenset()) -> bytes:
        """Write the input in its one form. Raise `ValueError` if it is too deep, or holds what cannot be compared."""
        try:
            if schema is None:
                return _encode(self._written(self._fields, _NO_SHAPES, ignore))
            # A default can be a link in `files`, which this input alone says.
            defaults = None if self._files or ignore else schema.derived(_normal_defaults)
            if defaults is None:
                return _encode(self._written(_defaults_of(schema) | self._fields, schema.inputs, ignore))
            return _encode(defaults | self._written(self._fields, schema.inputs, ignore))
        except _UNREADABLE as exc:
            raise _unreadable(exc) from exc

    def normal(self, shapes: Mapping[str, Shape]) -> dict[str, Any]:
        """Return every value in its one form. Raise `ValueError` for what has none."""
        return self._written(self._fields, shapes, frozenset())

    def _written(
        self, fields: Mapping[str, Any], shapes: Mapping[str, Shape], ignore: frozenset[str]
    ) -> dict[str, Any]:
        written: dict[str, Any] = {}
        files = self._files
        for name, value in fields.items():
            if name in ignore:
                continue
            kind = type(value)
            # Most inputs are plain texts, small numbers and flags, which are their own form already.
            if kind is str:
                is_plain = not files and value[4:5] != ":"  # which a data: URI has there
            elif kind is int:
                is_plain = -_SHORT < value < _SHORT
            else:
                is_plain = value is None or kind is bool
            written[name] = value if is_plain else self._normal(value, shapes.get(name, _ANYTHING), MAX_DEPTH)
        return written

    def _normal(self, value: Any, shape: Shape, depth: int) -> Any:
        """Return a decoded value in its one form."""
        if depth <= 0:
            raise ValueError(_TOO_DEEP)
        kind = type(value)
        if kind is str:
            content = self._content(value, is_text=shape.is_text)
            return value if content is None else content.token
        if kind is Raw:  # a number with a fraction or an exponent
            return _number(str(value, "ascii"), shape)
        if kind is int:
            return value if -_SHORT < value < _SHORT or not shape.is_number else _number(str(value), shape)
        if kind is list:
            return self._normal_items(value, shape.items or _ANYTHING, depth - 1)
        if kind is dict:
            named, others = shape.properties, shape.others or _ANYTHING
            return {name: self._normal(item, named.get(name, others), depth - 1) for name, item in value.items()}
        return value

    def _normal_items(self, values: list[Any], shape: Shape, depth: int) -> list[Any]:
        """Return the items of an array in their one form. Most are numbers, and need no call of their own."""
        if values and depth <= 0:
            raise ValueError(_TOO_DEEP)
        normal = []
        for value in values:
            kind = type(value)
            if kind is Raw:
                normal.append(_number(str(value, "ascii"), shape))
            elif kind is int and -_SHORT < value < _SHORT:
                normal.append(value)
            else:
                normal.append(self._normal(value, shape, depth))
        return normal

    def _content(self, text: str, *, is_text: bool = False) -> FileContent | None:
        """Return the content of the file that a text stands for. `is_text`: a data: URI is text like any other."""
        content = self._files.get(text) if self._files and len(text) <= _LONGEST_LINK else None
        if content is None and not is_text and text[:5].lower() == "data:":
            if text not in self._contents:
                self._contents[text] = content_of(text)
            content = self._contents[text]
        return content


def _defaults_of(schema: InputSchema) -> dict[str, Any]:
    return schema.derived(_decoded_defaults)


def _decoded_defaults(schema: InputSchema) -> dict[str, Any]:
    defaults: dict[str, Any] = _decode(schema.defaults)
    return defaults


def _normal_defaults(schema: InputSchema) -> dict[str, Any] | None:
    """Return a schema's defaults in their one form; `None` if one of them has none, which an input may replace."""
    try:
        return Input(schema.defaults, {}).normal(schema.inputs)
    except (ValueError, *_UNREADABLE):
        return None


def fingerprint(target: str, canonical: bytes, scope: str) -> str:
    """Return the key that equal requests have in common, as 64 hex digits.

    `target` is a `target_identity`, `scope` a `sharing_scope`, `canonical` what `Input.canonical` wrote.
    """
    return _digest("fingerprint", target, scope, canonical)


def provisional(target: str, canonical: bytes, scope: str, secret: bytes) -> str:
    """Return the key for the time in which a bare version's model, and so its schema, is unknown.

    See docs/architecture.md, Create.

    `canonical` was written without a schema, so it can hold values that are secret: the key is an HMAC with a secret of
    the store, from which they cannot be guessed. Never equal to a `fingerprint`.
    """
    return _keyed("provisional", target, canonical, scope, secret)


def without_schema(target: str, canonical: bytes, scope: str, secret: bytes) -> str:
    """Return the key under which equal requests meet whose schema cannot be read. An HMAC, as `provisional`."""
    return _keyed("without schema", target, canonical, scope, secret)


def _keyed(domain: str, target: str, canonical: bytes, scope: str, secret: bytes) -> str:
    return hmac.digest(secret, _digest(domain, target, scope, canonical).encode(), "sha256").hex()


def sharing_scope(share: str, team: str) -> str:
    """Name the circle within which runs are shared: `all`, or one team whatever its name."""
    return "all" if share == "all" else f"team:{team}"


def _digest(domain: str, target: str, scope: str, canonical: bytes) -> str:
    # Lengths stand before the parts, so that no two splits of one text are equal.
    head = f"replicate-gateway {domain} {VERSION}\n{len(target)}:{target}\n{len(scope)}:{scope}\n"
    digest = sha256(head.encode())
    digest.update(canonical)
    return digest.hexdigest()


def _most_values(given: bytes) -> int:
    """Count the values at most: each but the first of its array or object stands behind a comma.

    Texts at the top, large files among them, are one value each and need not be looked through.
    """
    fields = _decode_fields(given)
    if len(given) - sum(len(memoryview(field)) for field in fields.values()) > MAX_VALUES:
        return _separators(given)  # names, or values of repeated names: what was dropped would not be counted
    return len(fields) + sum(_separators(bytes(field)) for field in fields.values() if memoryview(field)[0] != _QUOTE)


def _separators(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _unreadable(exc: Exception) -> ValueError:
    if isinstance(exc, RecursionError):
        return ValueError(_TOO_DEEP)
    return ValueError(f"the input is not JSON that can be compared: {exc}")


def _number(text: str, shape: Shape) -> Raw:
    """Write a number by its exact value: as an integer where it may be one, else as `<digits>e<exponent>`."""
    sign = "-" if text[0] == "-" else ""
    mantissa, _, power = text.partition("e") if "e" in text else text.partition("E")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("-0")
    short = digits.rstrip("0")
    if not short:
        return Raw("-0e0" if sign and not shape.is_integer else "0" if shape.is_number else "0e0")
    exponent = len(digits) - len(short) - len(fraction)
    if power:
        exponent += _exponent(power)
    if 0 <= exponent <= _MOST_ZEROS and shape.is_number:
        return Raw(sign + short + "0" * exponent)
    return Raw(f"{sign}{short}e{exponent}")


def _exponent(power: str) -> int:
    digits = power.lstrip("+-").lstrip("0")
    if len(digits) > _MOST_ZEROS:
        raise ValueError("the input holds a number whose exponent is out of range")
    return -int(digits or "0") if power.startswith("-") else int(digits or "0")
