"""What is read from a version's schema."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.models.rules.schema import MAX_SCHEMA_BYTES, InputSchema, Shape, read_schema


def version(inputs, schemas=None, **document) -> bytes:
    parts = {"Input": {"type": "object", "properties": inputs}, **(schemas or {})}
    return json.dumps({"id": "v", **document, "openapi_schema": {"components": {"schemas": parts}}}).encode()


def read(inputs, schemas=None) -> InputSchema:
    found = read_schema(version(inputs, schemas))
    assert found is not None
    return found


def shape(schema, schemas=None) -> Shape:
    return read({"x": schema}, schemas).inputs["x"]


COG = {
    "seed": {"type": "integer", "title": "Seed", "x-order": 3},
    "width": {"allOf": [{"$ref": "#/components/schemas/width"}], "default": 1024, "x-order": 1},
    "scheduler": {"allOf": [{"$ref": "#/components/schemas/scheduler"}], "default": "DDIM"},
    "image": {"type": "string", "format": "uri"},
    "scale": {"type": "number", "default": 7.50, "minimum": 1, "maximum": 20},
    "prompt": {"type": "string", "default": ""},
    "images": {"type": "array", "items": {"type": "string", "format": "uri"}, "default": []},
    "last": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
}
ENUMS = {
    "width": {"enum": [512, 1024], "type": "integer", "title": "width"},
    "scheduler": {"enum": ["DDIM", "K_EULER"], "type": "string"},
    "Output": {"type": "array", "items": {"type": "string", "format": "uri"}},
}


def test_schema_of_a_usual_image_model_is_read():
    """Numbers, files and texts of an SDXL-like model are recognised, behind references too."""
    found = read(COG, ENUMS)
    assert found.has_seed
    assert not found.has_temperature
    assert found.inputs["width"].is_integer
    assert found.inputs["scale"].is_number
    assert not found.inputs["scale"].is_integer
    assert found.inputs["last"].is_integer
    assert found.inputs["prompt"].is_text
    assert found.inputs["scheduler"].is_text
    assert not found.inputs["image"].is_text
    assert found.inputs["images"].items == found.inputs["image"]
    assert json.loads(found.defaults) == {
        "width": 1024, "scheduler": "DDIM", "scale": 7.5, "prompt": "", "images": [], "last": None,
    }  # fmt: skip
    assert found.output == Shape(frozenset({"array"}), items=Shape(frozenset({"string"}), is_file=True))


def test_model_body_has_the_schema_of_its_latest_version():
    """Official models name no version; theirs is the newest."""
    body = b'{"owner":"a","name":"b","latest_version":' + version(COG, ENUMS) + b',"default_example":{"input":{}}}'
    assert read_schema(body) == read(COG, ENUMS)


def test_schema_can_be_stored():
    """A restart does not fetch every schema again."""
    found = read(COG, ENUMS)
    assert msgspec.json.decode(msgspec.json.encode(found), type=InputSchema) == found


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nonsense", b"null", b"[]", b"{}", b'{"latest_version":null}', b'{"latest_version":"hidden"}',
        b'{"openapi_schema":null}', b'{"openapi_schema":"x"}', b'{"latest_version":{"openapi_schema":7}}',
        b'{"openapi_schema":"\xff"}', b'{"openapi_schema":' + b"[" * 5000 + b"]" * 5000 + b"}",
    ],
)  # fmt: skip
def test_missing_schema_is_none(body):
    """A hidden version's determinism is unknown, and reported so."""
    assert read_schema(body) is None


@pytest.mark.parametrize(
    ("schema", "number", "integer", "text"),
    [
        ({"type": "number"}, True, False, False),
        ({"type": "integer"}, True, True, False),
        ({"type": ["integer", "null"]}, True, True, False),
        ({"type": "integer", "nullable": True}, True, True, False),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, True, False, False),
        ({"anyOf": [{"type": "number"}, {"type": "array", "items": {"type": "number"}}]}, True, False, False),
        ({"allOf": [{"type": "number"}, {"type": "integer"}]}, True, True, False),
        ({"anyOf": [{"type": "number"}, {"type": "string"}]}, False, False, True),
        ({"anyOf": [{"type": "string", "format": "uri"}, {"type": "null"}]}, False, False, False),
        ({"anyOf": [{"type": "string", "format": "uri"}, {"type": "string"}]}, False, False, True),
        ({"anyOf": [{"type": "number"}, {}]}, False, False, False),
        ({"type": "boolean"}, False, False, False),
        ({"type": "decimal"}, False, False, False),
        ({"type": ["number", 7]}, False, False, False),
        ({"$ref": "#/components/schemas/nowhere"}, False, False, False),
        ({"$ref": "https://example.com/x"}, False, False, False),
        ({"$ref": "#/components/schemas/a~1b"}, True, True, False),
        ({}, False, False, False),
        (True, False, False, False),
        (None, False, False, False),
    ],
)
def test_types_are_used_only_where_certain(schema, number, integer, text):
    """Where a model might read 1.0 as a text, 1 and 1.0 stay two requests."""
    found = shape(schema, {"a/b": {"type": "integer"}})
    assert (found.is_number, found.is_integer, found.is_text) == (number, integer, text)


def test_items_and_properties_are_read_at_depth():
    """Points and boxes, given as lists of lists or as objects, have numbers too."""
    points = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
    assert shape(points).items.items.is_number
    boxes = {"$ref": "#/components/schemas/Box"}
    found = shape(boxes, {"Box": {"type": "object", "properties": {"w": {"type": "integer"}}}})
    assert found.properties["w"].is_integer
    weights = {"type": "object", "additionalProperties": {"type": "number"}}
    assert shape(weights).others.is_number


def test_defaults_keep_every_digit():
    """A default seed beyond 64 bits, or a long fraction, is not rounded."""
    body = version({"a": {"default": 0}, "b": {"default": 1}}).replace(b": 0}", b": 1.10000000000000000000001}")
    found = read_schema(body.replace(b": 1}", b": 1180591620717411303425}"))
    assert found.defaults == b'{"a":1.10000000000000000000001,"b":1180591620717411303425}'


def test_number_beyond_floats_beside_a_linked_default_is_no_error():
    """What is not read counts as unknown: no request would be shared."""
    body = version({"a": {"default": 0}, "b": {"default": "https://x.example/"}}).replace(b": 0}", b": 1e400}")
    found = read_schema(body)
    assert found.defaults == b'{"a":1e400,"b":"https://x.example/"}'
    assert found.linked_defaults == {"b"}


@pytest.mark.parametrize(
    "schemas",
    [
        {"A": {"$ref": "#/components/schemas/A"}},
        {"A": {"allOf": [{"$ref": "#/components/schemas/A"}] * 50}},
        {"A": {"anyOf": [{"$ref": "#/components/schemas/A"}] * 50, "items": {"$ref": "#/components/schemas/A"}}},
        {"A": {"properties": {str(n): {"$ref": "#/components/schemas/A"} for n in range(200)}}},
    ],
)
def test_recursive_schema_ends(schemas):
    """No model's schema, however it refers to itself, stops the gateway."""
    read_schema(
        version({"x": {"$ref": "#/components/schemas/A"}}, {"Input": {"$ref": "#/components/schemas/A"}} | schemas)
    )
    read({"x": {"$ref": "#/components/schemas/A"}}, schemas)


def test_large_schema_is_read_in_part():
    """A schema with ten thousand inputs and a huge default is bounded, and its first inputs are known."""
    found = read(
        {"seed": {"type": "integer", "default": "x" * 100_000}} | {f"i{n}": {"default": n} for n in range(10_000)}
    )
    assert found.has_seed
    assert len(found.inputs) == 500
    assert len(found.defaults) < 70_000
    assert b"seed" not in found.defaults


def test_too_deep_default_is_left_out():
    """It would make every request of the model incomparable."""
    deep = json.loads("[" * 100 + "]" * 100)
    assert json.loads(read({"a": {"default": deep}, "b": {"default": 1}}).defaults) == {"b": 1}


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
    | st.sampled_from(["number", "integer", "string", "#/components/schemas/Input"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from([
            "components", "schemas", "Input", "Output", "properties", "type", "$ref", "allOf", "anyOf", "oneOf",
            "items", "additionalProperties", "nullable", "default", "format", "openapi_schema", "latest_version",
            "seed",
        ]), inner, max_size=5,
    ),
    max_leaves=30,
)  # fmt: skip


@given(JUNK, JUNK)
def test_any_schema_is_read_or_ignored(junk, other):
    """A model with an odd schema can be run."""
    for document in (
        junk,
        {"openapi_schema": junk, "latest_version": other},
        {"openapi_schema": {"components": {"schemas": {"Input": junk, "Output": other}}}},
        {"openapi_schema": {"components": {"schemas": {"Input": {"properties": {"a": junk, "b": other}}}}}},
    ):
        found = read_schema(json.dumps(document).encode())
        assert found is None or isinstance(json.loads(found.defaults), dict)


def test_large_schema_counts_as_unknown():
    """Whoever publishes a model writes its schema. Other parts of the answer do not count."""
    for size, is_known in ((1000, True), (MAX_SCHEMA_BYTES, False)):
        openapi = {"components": {"schemas": {"Input": {"properties": {"seed": {"type": "integer"}}}}}, "x": "x" * size}
        version = {"id": "v", "openapi_schema": openapi}
        for document in (version, {"latest_version": version}):
            whole = json.dumps(document | {"default_example": {"output": "y" * 1_000_000}}).encode()
            assert (read_schema(whole) is not None) is is_known
