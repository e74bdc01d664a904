"""Read the types of a version's inputs and output from Cog's `openapi_schema`, tolerantly.

Parts of a schema that are not understood are ignored: an input without a known type is left as the caller gave it.
Depth, number of nodes and size are bounded, so that no schema takes unbounded time or memory, even with circular
references.

Marks of secrets are never lost (docs/replicate-api.md, Secret inputs). Where a part of the schema cannot be read, or
several parts are combined into one and a mark has no place in it, the whole value counts as secret.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from gateway.domain import large_json, text_links
from gateway.domain.large_bytes import copied

T = TypeVar("T")

SEED = "seed"
TEMPERATURE = "temperature"

MAX_SCHEMA_BYTES = 512 * 1024
"""A larger schema counts as unknown: whoever publishes a model writes it, and decoding takes 0.1 s for a megabyte."""
_MAX_DEPTH = 16
_MAX_NODES = 5_000
_MAX_INPUTS = 500
_MAX_DEFAULTS_BYTES = 64 * 1024
_FILE_FORMATS = ("uri", "url", "binary")
_REF_PREFIX = "#/components/schemas/"

_NUMBERS = frozenset({"number", "integer"})
_TYPES = _NUMBERS | {"string", "boolean", "array", "object", "null"}

_encode = msgspec.json.Encoder().encode
_decode_defaults = msgspec.json.Decoder(dict[str, Any], float_hook=Raw).decode

_SECRET = "secret"  # noqa: S105 - a mark
_PASSWORD = "password"  # noqa: S105 - a format of JSON Schema
_WRITE_ONLY = "write-only"
_NO_MARKS: frozenset[str] = frozenset()
_AS_SECRET = frozenset({_SECRET})
_NOT_READ = (
    "prefixItems", "additionalItems", "unevaluatedItems", "contains", "patternProperties", "unevaluatedProperties",
    "dependentSchemas", "if", "then", "else", "not",
)  # fmt: skip
"""Keywords that apply schemas in ways that shapes have no place for."""
_MARKS = (b"x-cog-secret", b"writeOnly", b"$ref")
"""What can be a mark, or lead to one."""


class Shape(msgspec.Struct, frozen=True, omit_defaults=True):
    """The type of one value, as far as the schema states it."""

    types: frozenset[str] = frozenset()
    """Type names of JSON Schema. Empty: any type."""
    is_file: bool = False
    """Whether every string here is the URL of a file."""
    items: "Shape | None" = None
    properties: dict[str, "Shape"] = {}
    others: "Shape | None" = None
    """Properties that are not named (`additionalProperties`)."""
    marks: frozenset[str] = _NO_MARKS
    """Marks by which a value can be secret."""
    holds_secret: bool = False
    """Whether the value, or a value in it, is secret."""

    @property
    def is_secret(self) -> bool:
        """Whether the whole value is secret: `x-cog-secret`, or `format: password` with `writeOnly`."""
        return _SECRET in self.marks or (_PASSWORD in self.marks and _WRITE_ONLY in self.marks)

    @property
    def is_number(self) -> bool:
        """Whether numbers are read as numbers, so that 1 and 1.0 are equal. As a string they would differ."""
        return not self.types.isdisjoint(_NUMBERS) and "string" not in self.types

    @property
    def is_integer(self) -> bool:
        """Whether numbers are read as integers, which have no negative zero."""
        return self.is_number and "number" not in self.types

    @property
    def is_text(self) -> bool:
        """Whether strings can be plain text, and not only URLs of files."""
        return "string" in self.types and not self.is_file


class InputSchema(msgspec.Struct, frozen=True, omit_defaults=True, dict=True):
    """The types of a version's inputs, by name, and of its output."""

    inputs: dict[str, Shape] = {}
    defaults: bytes = b"{}"
    """A JSON object with the default of every input that has one. Numbers are written exactly as in the schema."""
    output: Shape | None = None
    linked_defaults: frozenset[str] = frozenset()
    """Inputs whose default contains a link."""
    secrets: dict[str, Shape] = {}
    """The inputs that are secret, or that hold secret values."""
    training_secrets: dict[str, Shape] = {}
    """The same of the inputs of trainings."""

    @cached_property
    def mark(self) -> object:
        """What tells the schema from any other, and does not keep it in memory."""
        return object()

    @cached_property
    def _derived(self) -> dict[Any, Any]:
        return {}

    def derived(self, derive: Callable[["InputSchema"], T]) -> T:
        """Return what a function derives from the schema. It is called once."""
        known = self._derived
        if derive not in known:
            known[derive] = derive(self)
        found: T = known[derive]
        return found

    @property
    def has_seed(self) -> bool:
        """Whether the model takes a seed."""
        return SEED in self.inputs

    @property
    def has_temperature(self) -> bool:
        """Whether the model takes a temperature."""
        return TEMPERATURE in self.inputs


class _Document(msgspec.Struct):
    openapi_schema: Raw = Raw(b"null")
    latest_version: Raw = Raw(b"null")


_decode = msgspec.json.Decoder(_Document).decode
# Numbers with a fraction or an exponent are kept as text, so that no digit of a default is lost.
_decode_openapi = msgspec.json.Decoder(dict[str, Any], float_hook=Raw).decode


def _read_document(document: bytes | Raw) -> _Document:
    is_small, names = len(memoryview(document)) < large_json.WHOLE, _Document.__struct_fields__
    return _decode(document) if is_small else _Document(**large_json.split(copied(document), names))


def read_schema(document: bytes) -> InputSchema | None:
    """Read the schema in the JSON of a version, or of a model (its latest version's).

    Return `None` if there is none: the version is hidden, the model has no version, or the body is something else. Also
    if it is larger than `MAX_SCHEMA_BYTES`, or if it does not say which inputs are secret, and some are.
    """
    try:
        body = _read_document(document)
        written = memoryview(body.openapi_schema)
        if bytes(written[:1]) != b"{" and bytes(memoryview(body.latest_version)[:1]) == b"{":
            written = memoryview(_read_document(body.latest_version).openapi_schema)
        if bytes(written[:1]) != b"{" or len(written) > MAX_SCHEMA_BYTES:
            return None
        openapi = _decode_openapi(written)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    schemas = _dict(_dict(openapi.get("components")).get("schemas"))
    wanted = schemas.get("Input")
    whole, training = (
        _Reader(schemas).shape(wanted, _MAX_DEPTH),
        _Reader(schemas).shape(schemas.get("TrainingInput"), _MAX_DEPTH),
    )
    if _hides_secrets(whole) or _hides_secrets(training):
        return None
    inputs = whole.properties
    defaults = _defaults(_Reader(schemas).properties(wanted, _MAX_DEPTH))
    return InputSchema(
        inputs=dict(islice(inputs.items(), _MAX_INPUTS)),
        defaults=defaults,
        output=_Reader(schemas).shape(schemas["Output"], _MAX_DEPTH) if "Output" in schemas else None,
        linked_defaults=_linked(defaults),
        secrets=_secrets(inputs),
        training_secrets=_secrets(training.properties),
    )


def _hides_secrets(whole: Shape) -> bool:
    """Return whether inputs can be secret that have no shape of their own: the schema is then as good as unknown."""
    return whole.is_secret or (whole.others is not None and whole.others.holds_secret)


def _secrets(inputs: dict[str, Shape]) -> dict[str, Shape]:
    return {name: shape for name, shape in inputs.items() if shape.holds_secret}


def _linked(defaults: bytes) -> frozenset[str]:
    if not text_links.may_be_in(defaults):
        return frozenset()
    given = _decode_defaults(defaults)
    return frozenset(name for name, value in given.items() if text_links.find([value]) is not None)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


class _Reader:
    """Reads shapes from one document. Follows references until `_MAX_NODES` nodes are read."""

    def __init__(self, schemas: dict[str, Any]) -> None:
        self._schemas = schemas
        self._nodes_left = _MAX_NODES

    def shape(self, schema: Any, depth: int) -> Shape:
        self._nodes_left -= 1
        if not isinstance(schema, dict):
            return Shape()
        if depth <= 0 or self._nodes_left < 0:
            # What is not read can be marked.
            return _UNREAD
        parts = [self._own(schema, depth - 1)]
        if "$ref" in schema:
            referred = self._referred(schema)
            parts.append(_UNREAD if referred is None else self.shape(referred, depth - 1))
        parts += [self.shape(part, depth - 1) for part in _dicts(schema.get("allOf"))]
        parts += [
            _any_of([self.shape(part, depth - 1) for part in _dicts(schema[keyword])])
            for keyword in ("anyOf", "oneOf")
            if _dicts(schema.get(keyword))
        ]
        combined = _all_of(parts)
        if schema.get("nullable") is True and combined.types:
            return replace(combined, types=combined.types | {"null"})
        return combined

    def properties(self, schema: Any, depth: int) -> dict[str, Any]:
        """Return the schemas of an object's properties, including those from references and `allOf`."""
        self._nodes_left -= 1
        if not isinstance(schema, dict) or depth <= 0 or self._nodes_left < 0:
            return {}
        found: dict[str, Any] = {}
        for part in (self._referred(schema), *_dicts(schema.get("allOf"))):
            found |= self.properties(part, depth - 1)
        return dict(islice((found | _dict(schema.get("properties"))).items(), _MAX_INPUTS))

    def _referred(self, schema: dict[str, Any]) -> Any:
        ref = schema.get("$ref")
        if not isinstance(ref, str) or not ref.startswith(_REF_PREFIX):
            return None
        return self._schemas.get(ref.removeprefix(_REF_PREFIX).replace("~1", "/").replace("~0", "~"))

    def _own(self, schema: dict[str, Any], depth: int) -> Shape:
        properties = islice(_dict(schema.get("properties")).items(), _MAX_NODES)
        return _shape(
            types=_types(schema.get("type")),
            is_file=schema.get("format") in _FILE_FORMATS,
            items=self.shape(schema["items"], depth) if isinstance(schema.get("items"), dict) else None,
            properties={name: self.shape(part, depth) for name, part in properties},
            others=self._others(schema.get("additionalProperties"), depth),
            marks=_marks(schema) | (_AS_SECRET if _has_unread_mark(schema) else _NO_MARKS),
        )

    def _others(self, schema: Any, depth: int) -> Shape | None:
        return self.shape(schema, depth) if isinstance(schema, dict) else None


def _types(value: Any) -> frozenset[str]:
    names = value if isinstance(value, list) else [value]
    known = {name for name in names if isinstance(name, str) and name in _TYPES}
    return frozenset(known) if len(known) == len(names) else frozenset()


_UNREAD = Shape(marks=_AS_SECRET, holds_secret=True)


def _has_unread_mark(schema: dict[str, Any]) -> bool:
    """Return whether a keyword that is not read holds a mark, such as the schemas of the places of a tuple."""
    unread = [schema[keyword] for keyword in _NOT_READ if keyword in schema]
    if isinstance(schema.get("items"), list):
        unread.append(schema["items"])
    return any(mark in _encode(part) for part in unread for mark in _MARKS)


def _marks(schema: dict[str, Any]) -> frozenset[str]:
    marks = set()
    if schema.get("x-cog-secret") is True:
        marks.add(_SECRET)
    if schema.get("format") == "password":
        marks.add(_PASSWORD)
    if schema.get("writeOnly") is True:
        marks.add(_WRITE_ONLY)
    return frozenset(marks) if marks else _NO_MARKS


def _shape(
    *,
    types: frozenset[str] = frozenset(),
    is_file: bool = False,
    items: Shape | None = None,
    properties: dict[str, Shape] | None = None,
    others: Shape | None = None,
    marks: frozenset[str] = _NO_MARKS,
) -> Shape:
    parts = [*(properties or {}).values(), *(part for part in (items, others) if part is not None)]
    shape = Shape(types, is_file, items, properties or {}, others, marks)
    return replace(shape, holds_secret=True) if shape.is_secret or any(part.holds_secret for part in parts) else shape


def _hold_secret(shapes: Iterable[Shape | None]) -> bool:
    return any(shape is not None and shape.holds_secret for shape in shapes)


def _all_of(shapes: Sequence[Shape]) -> Shape:
    """Combine shapes that all apply: `allOf`, a reference, and the keywords beside them."""
    if len(shapes) == 1:
        return shapes[0]
    types: frozenset[str] = frozenset()
    properties: dict[str, Shape] = {}
    for shape in shapes:
        types = _common(types, shape.types)
        for name, part in shape.properties.items():
            properties[name] = _all_of([properties[name], part]) if name in properties else part
    items, others = _first(shape.items for shape in shapes), _first(shape.others for shape in shapes)
    marks = _NO_MARKS.union(*(shape.marks for shape in shapes))
    for used, parts in ((items, [each.items for each in shapes]), (others, [each.others for each in shapes])):
        if _hold_secret(part for part in parts if part is not used):
            marks |= _AS_SECRET
    return _shape(
        types=types,
        is_file=any(shape.is_file for shape in shapes),
        items=items,
        properties=properties,
        others=others,
        marks=marks,
    )


def _common(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    if not one or not other:
        return one or other
    common = one & other
    if one & _NUMBERS and other & _NUMBERS and not common & _NUMBERS:
        return common | {"integer"}  # "number" and "integer" together mean an integer.
    return common


def _any_of(shapes: Sequence[Shape]) -> Shape:
    """Combine alternatives (`anyOf`, `oneOf`).

    If only one alternative allows objects, its properties apply to every object. With several, they are dropped.
    """
    marks = _NO_MARKS.union(*(shape.marks for shape in shapes))
    if not all(shape.types for shape in shapes):
        return _shape(marks=marks | _AS_SECRET if _hold_secret(shapes) else marks)
    texts = [shape for shape in shapes if "string" in shape.types]
    arrays = [shape.items for shape in shapes if "array" in shape.types]
    objects = [shape for shape in shapes if "object" in shape.types]
    known = [items for items in arrays if items is not None]
    is_lost = len(known) != len(arrays) and _hold_secret(known)
    if len(objects) > 1 and _hold_secret(part for each in objects for part in (*each.properties.values(), each.others)):
        is_lost = True
    return _shape(
        marks=marks | _AS_SECRET if is_lost else marks,
        types=frozenset().union(*(shape.types for shape in shapes)),
        is_file=bool(texts) and all(shape.is_file for shape in texts),
        items=_any_of(known) if known and len(known) == len(arrays) else None,
        properties=objects[0].properties if len(objects) == 1 else {},
        others=objects[0].others if len(objects) == 1 else None,
    )


def _first(shapes: Iterable[Shape | None]) -> Shape | None:
    return next((shape for shape in shapes if shape is not None), None)


def _defaults(properties: dict[str, Any]) -> bytes:
    """Return the defaults as one JSON object. Defaults that are too large or too deep are left out."""
    found: dict[str, Raw] = {}
    room = _MAX_DEFAULTS_BYTES
    for name, schema in islice(properties.items(), _MAX_INPUTS):
        if not isinstance(schema, dict) or "default" not in schema or not _is_shallow(schema["default"], _MAX_DEPTH):
            continue
        written = Raw(_encode(schema["default"]))
        if len(bytes(written)) <= room:
            found[name] = written
            room -= len(bytes(written))
    return _encode(found)


def _is_shallow(value: Any, depth: int) -> bool:
    items: Iterable[Any] = ()
    if isinstance(value, dict):
        items = value.values()
    elif isinstance(value, list):
        items = value
    return depth > 0 and all(_is_shallow(item, depth - 1) for item in items)
