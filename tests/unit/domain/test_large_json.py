"""Very large JSON is split piece by piece with the result of the decoder that goes through it in one call."""

import json
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from gateway.domain import large_bytes, large_json

FRAGMENTS = [
    b'"', b"\\", b'\\"', b"\\\\", b"[", b"]", b"{", b"}", b",", b":", b" ", b"\n", b"1", b"-", b"e5", b"true", b"null",
    b'"a"', b'"":', b"\\ud83d", b"\\ude00", b"\xc3\xa9", b"\xff", b"\0", b"x", b"\\u0041", b"0.5", b'{"a":[', b"]}",
]  # fmt: skip
LONG = 60
"""Longer than any step of these tests."""

STRINGS = st.lists(st.sampled_from(["a", "é", "😀", '"', "\\", ",", "[", "}", ":", " ", "x" * LONG])).map("".join)
VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), STRINGS,
        st.just(10**LONG), st.just([[[[[[]]]]]]), st.just({}), st.just([{"a": []}] * 3),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
OBJECTS = st.dictionaries(STRINGS, VALUES, max_size=5)
INDENTS = st.sampled_from([None, 0, 1, LONG])
CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 4), st.sampled_from(FRAGMENTS)), max_size=3)
STEPS = st.sampled_from([12, 13, 14, 16, 24, 40])


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with less work."""
    monkeypatch.setattr(large_json, "WHOLE", 0)
    monkeypatch.setattr(large_bytes, "WHOLE", 30)
    monkeypatch.setattr(large_bytes, "STEP", 7)


def written(value: Any, indent: int | None, changes: Iterable[tuple[int, int, bytes]], *, is_ascii: bool) -> bytes:
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii).encode()
    for place, removed, added in changes:
        at = place % (len(text) + 1)
        text = text[:at] + added + text[at + removed :]
    return text


def outcome(split: Callable[[bytes], Any], text: bytes) -> Any:
    try:
        found = split(text)
    except msgspec.ValidationError:
        return "not the kind"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "no JSON"
    items = found.items() if isinstance(found, dict) else enumerate(found)
    return [(name, bytes(value)) for name, value in items]


@settings(max_examples=150)
@given(OBJECTS, INDENTS, CHANGES, STEPS, st.booleans())
def test_objects_are_split_as_the_decoder_splits_them(value, indent, changes, step, is_ascii):
    """Whatever was changed in the text: the same fields, the same bytes, or an error of the same kind."""
    text = written(value, indent, changes, is_ascii=is_ascii)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(large_json, "STEP", step)
        assert outcome(large_json.split, text) == outcome(msgspec.json.Decoder(dict[str, Raw]).decode, text)


@settings(max_examples=40)
@given(st.lists(VALUES, max_size=5), INDENTS, CHANGES, STEPS)
def test_arrays_are_split_as_the_decoder_splits_them(value, indent, changes, step):
    text = written(value, indent, changes, is_ascii=False)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(large_json, "STEP", step)
        assert outcome(lambda text: list(large_json.items(text)), text) == outcome(
            msgspec.json.Decoder(list[Raw]).decode, text
        )


@settings(max_examples=40)
@given(OBJECTS, INDENTS, STEPS)
def test_some_fields_are_those_of_all(value, indent, step):
    text = written(value, indent, [], is_ascii=False)
    names: Collection[str] = list(value)[1:3]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(large_json, "STEP", step)
        found = large_json.split(text, names)
        assert found == {name: large_json.split(text)[name] for name in names}
        for name in names:
            place = large_json.find(text, json.dumps(name, ensure_ascii=False).encode())
            assert place is not None
            assert text[slice(*place)] == bytes(found[name])


@pytest.mark.parametrize("inner", [b"[]{}" * 50, b"[" * 200, b"".join(b'"k":1,' for _ in range(50))])
def test_search_ends_in_what_is_hardly_json(inner, monkeypatch):
    """Nothing has checked such a text, and to go through all of it can take minutes."""
    for name, bound in (("STEP", 40), ("_MOST_STEPS", 60), ("_DEEPEST", 60), ("MOST_FIELDS", 20)):
        monkeypatch.setattr(large_json, name, bound)
    assert large_json.find(b'{"a":1,' + inner + b'"logs":2}', b'"logs"') is None
    assert large_json.find(b'{"a":[' + b"[[]]," * 5 + b'1],"logs":2}', b'"logs"') is not None


@settings(max_examples=20)
@given(OBJECTS)
def test_objects_and_arrays_are_written_as_the_encoder_writes_them(value):
    fields = {name: Raw(msgspec.json.encode(each)) for name, each in value.items()}
    assert large_json.encode(fields) == msgspec.json.encode(fields)
    items = list(fields.values())
    assert bytes(large_json.encode_items(items)) == msgspec.json.encode(items)


@settings(max_examples=60)
@given(STRINGS, STEPS, st.booleans(), st.booleans())
def test_strings_are_decoded_as_the_decoder_decodes_them(text, step, is_ascii, has_half):
    """No character is cut, whether it is written as it is, as one escape or as two."""
    value = json.dumps(text, ensure_ascii=is_ascii).encode()
    value = value[:-1] + b"\\ud83d" * has_half + b'"'
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(large_json, "STEP", step)
        if has_half:
            with pytest.raises(msgspec.DecodeError):
                large_json.decode_string(b" " + value, 1, 1 + len(value))
        else:
            assert large_json.decode_string(b" " + value + b" ", 1, 1 + len(value)) == text
    with pytest.raises(msgspec.DecodeError):
        large_json.decode_string(b'"' + b"x" * LONG + b'" x', 0, LONG + 4)


@pytest.mark.parametrize(
    "text",
    [
        b"", b" ", b"1", b"null", b"[]", b"{", b"{}", b"{} x", b'{} ""', b"{}1", b"{},",
        b" " * LONG + b"{}" + b" " * LONG, b'{"a":1.' + b"9" * LONG + b"e" + b"9" * LONG + b"}",
        b'{"a":' + b"9" * LONG + b"}", b'{"a":' + b"0" * LONG + b"}",
        b'{"a":' + b"1." * LONG + b"}", b'{"a":' + b"x" * LONG + b"}", b'{"a":true' + b" " * LONG + b"}",
        b'{"a" ' + b" " * LONG + b":1}", b'{"' + b"k" * LONG + b'":1}', b'{"' + b"k" * LONG + b'"}',
        b'{"' + b"k" * LONG + b'",1}', b'["' + b"k" * LONG + b'":1]',
        b'{"a":"' + b"k" * LONG, b'{"a":"' + b"\\" * LONG + b'"}',
        b'{"a":"' + b"\\ud83d\\ude00" * LONG + b'"}', b'{"a":"' + b"\\ud83d" * LONG + b'"}', b'{"a":"\\u12"}',
        b'{"a":"' + b"\\ude00" * LONG + b'"}', b'{"a":1' + b" " * LONG + b'"' + b"x" * LONG + b'"}',
        b'{"a":[' + b"1," * LONG + b"]}", b'{"a":[' + b"1," * LONG + b"1]}", b'{"a":1,' + b" " * LONG + b"}",
        b'{"a":[' + b" " * LONG + b",1]}", b'{"a":[' + b"[" * LONG + b"]" * LONG + b"]}", b'{"a":{' * 9 + b"}" * 18,
        b'{"a":["' + b'","'.join(b"x" * each + b"\\\\\x80" + b"x" * LONG for each in range(40)) + b'"]}',
        b'{"a":' + b"[{" * LONG + b"]}" * LONG + b"}", b'{"a":' + b"[]" * LONG + b"}", b'{"a":1}' + b"}" * LONG,
    ],
)  # fmt: skip
def test_odd_objects_have_the_decoders_outcome(text, monkeypatch):
    for step in (12, 16, 40):
        monkeypatch.setattr(large_json, "STEP", step)
        assert outcome(large_json.split, text) == outcome(msgspec.json.Decoder(dict[str, Raw]).decode, text)


def test_what_is_nested_too_deeply_is_refused(monkeypatch):
    monkeypatch.setattr(large_json, "STEP", 64)
    with pytest.raises(RecursionError):
        large_json.split(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def test_object_of_too_many_fields_is_refused_unless_some_are_wanted(monkeypatch):
    monkeypatch.setattr(large_json, "MOST_FIELDS", 10)
    text = msgspec.json.encode({f"k{number}": number for number in range(11)})
    with pytest.raises(msgspec.ValidationError, match="more than 10 fields"):
        large_json.split(text)
    assert large_json.split(text, {"k10"}) == {"k10": Raw(b"10")}


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_pieces_are_joined(pieces):
    assert large_bytes.joined(memoryview(piece) for piece in pieces) == b"".join(pieces)
    assert large_bytes.copied(Raw(b"".join(pieces))) == b"".join(pieces)


@given(st.integers(0, 40), st.binary(max_size=60), st.integers(0, 40))
def test_white_space_is_removed_at_both_ends(before, text, after):
    whole = b" " * before + text + b"\t\n" * after
    assert large_bytes.stripped(whole) == whole.strip()
