"""Secret values of inputs: which they are, and what stands in their place."""

import json

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from gateway.domain.keyed_digest import KeyedDigest
from gateway.models.rules import secrets
from gateway.models.rules.schema import Shape, read_schema
from gateway.models.rules.secrets import REDACTED

MARK = {"type": "string", "format": "password", "writeOnly": True, "x-cog-secret": True}
DIGEST = KeyedDigest(b"s" * 32, "inputs")


def read(inputs, schemas=None, of="Input") -> dict[str, Shape]:
    parts = {of: {"type": "object", "properties": inputs}, **(schemas or {})}
    found = read_schema(json.dumps({"openapi_schema": {"components": {"schemas": parts}}}).encode())
    assert found is not None
    return found.secrets if of == "Input" else found.training_secrets


def redacted(given, inputs, schemas=None, of="Input"):
    return json.loads(secrets.redact(json.dumps(given).encode(), read(inputs, schemas, of)).input)


@pytest.mark.parametrize(
    "schema",
    [
        MARK,
        {"type": "string", "x-cog-secret": True},
        {"type": "string", "format": "password", "writeOnly": True},
        {"allOf": [{"$ref": "#/components/schemas/S"}]},
        {"$ref": "#/components/schemas/S", "description": "beside"},
        {"allOf": [{"type": "string", "format": "password"}], "writeOnly": True},
        {"anyOf": [MARK, {"type": "null"}]},
        {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/S"}]},
        {"anyOf": [{"x-cog-secret": True}, {"type": "null"}]},
        {"oneOf": [{"anyOf": [MARK]}, {"type": "integer"}]},
        {"$ref": "#/$defs/S"},
        {"$ref": "#/components/schemas/Missing"},
        {"type": "array", "items": [MARK]},
        {"type": "array", "prefixItems": [{"type": "string"}, MARK]},
        {"type": "object", "patternProperties": {".*": MARK}},
        {"if": {"type": "string"}, "then": {"$ref": "#/components/schemas/S"}},
    ],
)
@pytest.mark.parametrize("of", ["Input", "TrainingInput"])
def test_mark_is_found_through_references_and_combinations(schema, of):
    given = {"x": "value", "y": "shown", "n": 1.0}
    assert redacted(given, {"x": schema, "y": {"type": "string"}}, {"S": MARK}, of) == given | {"x": REDACTED}
    assert redacted({"x": None}, {"x": schema}, {"S": MARK}, of) == {"x": None}


@pytest.mark.parametrize(
    ("schema", "value", "shown"),
    [
        ({"type": "array", "items": MARK}, ["a", "b", None], [REDACTED, REDACTED, None]),
        ({"type": "array", "items": {"anyOf": [MARK, {"type": "null"}]}}, ["a"], [REDACTED]),
        ({"x-cog-secret": True, "type": "array"}, ["a", ["b"]], [REDACTED, [REDACTED]]),
        ({"type": "object", "properties": {"k": MARK}}, {"k": "a", "o": "b"}, {"k": REDACTED, "o": "b"}),
        ({"type": "object", "additionalProperties": MARK}, {"k": "a"}, {"k": REDACTED}),
        ({"anyOf": [{"type": "object", "properties": {"k": MARK}}, {"type": "object"}]}, {"k": "a"}, REDACTED),
        ({"anyOf": [{"properties": {"k": MARK}}, {"type": "string"}]}, {"k": "a"}, REDACTED),
        ({"allOf": [{"items": {"type": "string"}}, {"items": MARK}]}, ["a"], [REDACTED]),
        ({"x-cog-secret": True}, 1234, REDACTED),
        ({"x-cog-secret": True}, {"a": 1}, REDACTED),
    ],
)
def test_secret_in_a_list_or_object_is_found(schema, value, shown):
    assert redacted({"x": value}, {"x": schema}) == {"x": shown}


@pytest.mark.parametrize(
    "schema", [{"type": "string"}, {"type": "string", "format": "password"}, {"writeOnly": True}, {"x-cog-secret": 1}]
)
def test_other_inputs_are_not_secret(schema):
    given = b'{ "x" : "value", "n":1.50 }'
    assert secrets.redact(given, read({"x": schema})).input is given


def test_what_is_too_deep_to_read_counts_as_secret():
    deep = MARK
    for _ in range(20):
        deep = {"type": "object", "properties": {"k": deep}}
    value = "token"
    for _ in range(20):
        value = {"k": value}
    assert "token" not in json.dumps(redacted({"x": value}, {"x": deep}))


@pytest.mark.parametrize(
    "whole",
    [
        {"anyOf": [{"type": "object", "properties": {"k": MARK}}, {"type": "object", "properties": {"y": {}}}]},
        {"type": "object", "additionalProperties": MARK},
        {"$ref": "#/components/schemas/Input"},
        {"type": "object", "properties": {"k": {}}, "x-cog-secret": True},
    ],
)
@pytest.mark.parametrize("of", ["Input", "TrainingInput"])
def test_schema_that_does_not_say_which_inputs_are_secret_is_unknown(whole, of):
    """Its inputs are stored as digests then, as those of any unknown schema."""
    parts = {"Input": {"type": "object", "properties": {"k": {"type": "string"}}}} | {of: whole}
    if "$ref" in whole:
        whole["$ref"] = f"#/components/schemas/{of}"
    assert read_schema(json.dumps({"openapi_schema": {"components": {"schemas": parts}}}).encode()) is None


def test_all_spellings_of_the_values_are_struck():
    given = json.dumps({"x": 'sk-"é</>&'}).encode()
    found = secrets.redact(given, read({"x": MARK}))
    assert found.values == ('sk-"é</>&',)
    for text in (
        json.dumps({"error": 'bad sk-"é</>& !'}).encode(),
        json.dumps({"error": 'bad sk-"é</>& !'}, ensure_ascii=False).encode(),
        b'{"error": "bad sk-\\"\xc3\xa9\\u003c/\\u003e\\u0026 !"}',
        b'{"error": "bad sk-\\"\xc3\xa9<\\/>& !"}',
    ):
        assert json.loads(secrets.strike(text, found.values)) == {"error": f"bad {REDACTED} !"}


def test_short_value_is_not_searched_for_in_other_texts():
    assert secrets.strike(b'{"error":"a cat"}', ("cat",)) == b'{"error":"a cat"}'


def test_texts_of_an_unknown_schema_become_digests():
    """Equal values have equal digests; numbers and flags stay; the values cannot be guessed without the key."""
    given = {"a": "hunter2", "b": "hunter2", "c": "h\nunter2", "l": ["x"], "o": {"k": "v"}, "n": [1, 2.5], "f": True}
    stored = json.loads(secrets.digest_texts(json.dumps(given).encode(), DIGEST).input)
    assert stored["a"] == stored["b"] != stored["c"]
    assert all(stored[name].startswith("hmac-sha256:") for name in "abclo")
    assert (stored["n"], stored["f"]) == ([1, 2.5], True)
    other = secrets.digest_texts(json.dumps(given).encode(), KeyedDigest(b"t" * 32, "inputs"))
    assert json.loads(other.input)["a"] != stored["a"]
    escaped = secrets.digest_texts(b'{"a":"\\u0068unter2"}', DIGEST)
    assert json.loads(escaped.input)["a"] == stored["a"]


def test_texts_in_lists_and_objects_of_an_unknown_schema_are_suspected():
    given = {"keys": ["sk-1234567890", 5], "o": {"k": {"x": "hf-1234567890"}}, "s": "short", "n": [1] * 20}
    suspects = secrets.digest_texts(json.dumps(given).encode(), DIGEST).suspects
    assert secrets.suspected_texts(suspects) == ("sk-1234567890", "hf-1234567890")
    assert len(secrets.suspected_texts({"l": [f"a long text {n}" for n in range(99)]})) == secrets.MOST_STRUCK


def test_given_secret_is_noticed():
    shapes = read({"x": MARK, "l": {"type": "array", "items": MARK}})
    assert secrets.are_given(shapes, b'{"x":"a"}')
    assert secrets.are_given(shapes, b'{"l":["a"]}')
    for given in (b"{}", b'{"x":null}', b'{"l":[]}', b'{"l":[null],"y":"a"}'):
        assert not secrets.are_given(shapes, given)


def test_number_of_values_that_are_searched_for_is_bounded():
    """Each is a pass over every document of the run."""
    given = json.dumps({"l": [f"secret-{n}" for n in range(1000)]}).encode()
    found = secrets.redact(given, read({"l": {"type": "array", "items": MARK}}))
    assert len(found.values) == secrets.MOST_STRUCK
    assert b"secret-" not in found.input
    texts = json.dumps({f"t{n}": f"a long text {n}" for n in range(1000)}).encode()
    assert len(secrets.digest_texts(texts, DIGEST).suspects) == secrets.MOST_STRUCK


def test_quotes_are_found_in_error_and_logs_only():
    values = ("a long value",)
    for name, is_one in (("error", True), ("logs", True), ("output", False), ("input", False)):
        assert secrets.are_quoted(json.dumps({name: "this is a long value!"}).encode(), values) is is_one


DOCUMENT = {
    "id": "abc",
    "status": "succeeded",
    "model": "acme/signer",
    "input": {"api_token": REDACTED, "text": "hi", "seed": 123456},
    "output": ["https://replicate.delivery/a/123456.png", 123456.5],
    "error": None,
    "logs": "one\nabcdef",
    "metrics": {"predict_time": 0.123456},
    "completed_at": "2026-11-29T00:00:00Z",
}


@pytest.mark.parametrize(
    "value",
    [
        "status",
        "succeeded",
        "completed_at",
        "predict_time",
        "123456",
        ".123456",
        "acme/signer",
        '", "',
        ": null, ",
        "abcdef\\",
    ],
)
def test_no_value_makes_a_document_unreadable(value):
    """A caller chooses the value. Whatever it is, the status, the times, the model and the numbers stay."""
    struck = json.loads(secrets.strike_document(json.dumps(DOCUMENT).encode(), (value, "nabcdef")))
    for name in ("id", "status", "model", "metrics", "completed_at"):
        assert struck[name] == DOCUMENT[name]
    assert struck["input"]["seed"] == 123456
    assert struck["logs"] == "one\nabcdef"


def test_value_is_struck_from_all_that_a_model_writes():
    document = DOCUMENT | {"output": {"sk-12345": ["a sk-12345"]}, "error": "é\nsk-12345", "metrics": {"x": "sk-12345"}}
    for written in (json.dumps(document), json.dumps(document, ensure_ascii=False)):
        struck = json.loads(secrets.strike_document(written.encode(), ("sk-12345",)))
        assert struck["output"] == {REDACTED: [f"a {REDACTED}"]}
        assert (struck["error"], struck["metrics"]) == (f"é\n{REDACTED}", {"x": REDACTED})


def test_value_that_is_a_part_of_another_leaves_no_rest():
    for order in (("sk-123", "sk-123-tail"), ("sk-123-tail", "sk-123")):
        assert json.loads(secrets.strike_json(b'"a sk-123-tail b"', order)) == f"a {REDACTED} b"
        assert secrets.strike(b"a sk-123-tail b", order) == f"a {REDACTED} b".encode()


def test_values_that_are_parts_of_the_redaction_text_do_not_multiply():
    values = tuple(REDACTED[at : at + 6] for at in range(16))
    for struck in (
        secrets.strike(values[0].encode() * 100, values),
        secrets.strike_json(b'"%b"' % (values[0].encode() * 100), values),
    ):
        assert len(struck) <= 100 * len(REDACTED) + 2


def test_answer_that_is_no_json_is_searched_as_text():
    assert secrets.strike_answer(b"<p>bad sk-12345", ("sk-12345",)) == f"<p>bad {REDACTED}".encode()
    assert secrets.strike_answer(b'{"status":422,"detail":"bad 422422"}', ("422422",)) == (
        f'{{"status":422,"detail":"bad {REDACTED}"}}'.encode()
    )
    assert secrets.strike_answer(b'{"detail":"x","n":422422}', ("detail", "422422")) == b'{"detail":"x","n":422422}'


LETTERS = st.text(alphabet='ab"\\\n\u00e9\U0001f600/<&: ,{}[]1.', min_size=6, max_size=10)
VALUES = st.recursive(
    st.none() | st.integers() | LETTERS,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(LETTERS, part, max_size=3),
)


def strings_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from strings_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from strings_in(each)


@examples(st.lists(LETTERS, min_size=1, max_size=4), VALUES, LETTERS, st.booleans(), st.data())
def test_struck_document_is_readable_and_has_no_value(values, output, logs, is_ascii, data):
    quoted = data.draw(st.sampled_from(values))
    document = DOCUMENT | {"output": output, "logs": f"{logs}{quoted}{logs}", "model": quoted}
    struck = json.loads(secrets.strike_document(json.dumps(document, ensure_ascii=is_ascii).encode(), tuple(values)))
    assert {**struck, "output": 0, "logs": 0, "input": 0} == {**document, "output": 0, "logs": 0, "input": 0}
    texts = [text.replace(REDACTED, "\0") for text in strings_in([struck["output"], struck["logs"]])]
    assert not any(value in text for value in values for text in texts)


def test_long_values_are_not_searched_for():
    """They would be in memory until the run ends, and be searched for in each of its documents."""
    long, short = "x" * (secrets.LONGEST_STRUCK + 1), "y" * secrets.LONGEST_STRUCK
    texts = {"l": [long, *(f"{n}{short[9:]}" for n in range(10)), "password"]}
    found = secrets.redact(json.dumps(texts).encode(), read({"l": {"type": "array", "items": MARK}}))
    assert long not in found.values
    assert sum(map(len, found.values)) <= 4 * secrets.LONGEST_STRUCK
    assert json.loads(found.input) == {"l": [REDACTED] * 12}
