"""What JSON text holds, counted before it is decoded."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.domain.json_scan import BodyLimits, excess_of, excess_steps, holds, items_of, mask, unmask

TEXTS = st.text(st.sampled_from('[]{},:"\\ hatp:/\n\tdé😀'), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXTS | st.sampled_from(["http://a", " HTTPS:/b", "data:,x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=30,
)
KEY = b"rgw_abc123def456_" + b"Az09" * 8


def links_in(value: Any) -> int:
    match value:
        case str():
            plain = value.lstrip("".join(map(chr, range(0x21))))
            plain = plain.replace("\n", "").replace("\t", "").lower()
            return int(plain.startswith("http") or value.lower().startswith("data:"))
        case dict():
            return sum(links_in(each) for pair in value.items() for each in pair)
        case list():
            return sum(map(links_in, value))
        case _:
            return 0


def keys_in(value: Any) -> int:
    each = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return (len(value) if isinstance(value, dict) else 0) + sum(map(keys_in, each))


def values_in(value: Any) -> int:
    each = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + sum(map(values_in, each))


def depth_of(value: Any) -> int:
    if not isinstance(value, (dict, list)):
        return 0
    each = [*value.values()] if isinstance(value, dict) else value
    return 1 + max(map(depth_of, each), default=0)


def limits_at(**most: int) -> BodyLimits:
    """Return limits of which only some bind."""
    free = dict.fromkeys(("max_links", "max_keys", "max_values", "max_depth", "max_half_surrogates"), 10_000)
    return BodyLimits(**{**free, **most})


@given(st.dictionaries(TEXTS, VALUES, max_size=3), st.sampled_from([None, 1]), st.booleans())
@example({"a": [[], {}, [[]]]}, None, False)
@example({"a": '"\\"'}, 1, True)
def test_counts_are_those_of_the_decoded_value(body: dict[str, Any], indent: int | None, is_ascii: bool) -> None:
    """Exactly as much as a limit says is allowed, whatever the spelling and whatever texts hold."""
    text = json.dumps(body, indent=indent, ensure_ascii=is_ascii).encode()
    for name, number in (
        ("max_keys", keys_in(body)), ("max_values", values_in(body)), ("max_depth", depth_of(body)),
    ):  # fmt: skip
        assert excess_of(text, limits_at(**{name: number})) is None
        if number > 0:
            found = excess_of(text, limits_at(**{name: number - 1}))
            assert found is not None
            assert (found.limit, found.most) == (name, number - 1)


@given(st.lists(VALUES, max_size=5))
def test_no_link_is_missed(values: list[Any]) -> None:
    """A link counts in every spelling. A text that only begins like one may count, too."""
    text = json.dumps(values).encode()
    number = links_in(values)
    if number > 1:
        found = excess_of(text, limits_at(max_links=number - 1))
        assert found is not None
        assert found.limit == "max_links"


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("max_links", b'["http://a","http://b","http://c"]'),
        ("max_links", rb'["\u0068ttp://a"," http:b","\th\nttp:/c"]'),
        ("max_keys", b'{"a":{"b":1},"c":{"d":{}}}'),
        ("max_values", b'{"a":[1,2,[3,{"b":"x,y"}],"[[["]}'),
        ("max_depth", b'[[[[{"a":[]}]]]]'),
        ("max_half_surrogates", rb'["\ud800","\ud83d\ude00","\udc00",{"\\ud800":"\uDFFF"}]'),
    ],
)
def test_the_field_is_named_in_which_the_limit_is_passed(limit: str, value: bytes) -> None:
    """The caller learns where, also if another field comes before or after, and is of some size."""
    most = {"max_links": 2, "max_keys": 5, "max_values": 10, "max_depth": 4, "max_half_surrogates": 2}[limit]
    long = b'"' + b"x" * 600_000 + b'"'
    for body in (
        b'{"version":"x","input":%b,"webhook":"y"}' % value,
        b'{"first":%b, "input" : %b,"last":1}' % (long, value),
    ):
        found = excess_of(body, limits_at(**{limit: most}))
        assert found is not None
        assert (found.limit, found.most, found.field) == (limit, most, "input")


@given(st.binary(max_size=60))
def test_bytes_that_are_no_json_are_scanned_without_an_error(body: bytes) -> None:
    """The decoder has the last word on them."""
    excess_of(body, limits_at(max_links=1, max_keys=1, max_values=1, max_depth=1, max_half_surrogates=1))


def test_a_large_body_is_scanned_in_steps() -> None:
    """Between two steps others are served."""
    body = b'{"input":"%b"}' % (b"\\\\," * 600_000)
    assert len([*excess_steps(body, BodyLimits())]) > 5


@given(TEXTS)
def test_a_masked_text_keeps_its_places(text: str) -> None:
    """Each quote that is left delimits a string."""
    written = json.dumps([text, 1]).encode()
    masked = mask(written)
    assert len(masked) == len(written)
    assert masked.count(b'"') == 2
    assert unmask(masked) == written


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        KEY.replace(b"r", rb"\u0072"),
        KEY.replace(b"A", rb"\u0041").replace(b"z", rb"\u007A"),
        b"".join(rb"\u%04x" % letter for letter in KEY),
    ],
)
@pytest.mark.parametrize("more", [b"", rb"\\ \" \/ \n \ud83d", rb"\\\u0041", b"\xff", rb"\u4e2d\ud83d\ude00"])
def test_a_secret_is_found_in_every_spelling(spelled: bytes, more: bytes) -> None:
    """Also beside escapes of other letters, and bytes that are no text."""
    assert holds(b'{"a":"%b%b%b"}' % (more, spelled, more), [b"another", KEY])
    assert not holds(b'{"a":"%b%b"}' % (more, spelled[:-1]), [KEY])


def test_an_escaped_backslash_begins_no_escape() -> None:
    r"""`\\u0072` is a backslash and the letters `u0072`."""
    assert not holds(b'{"a":"%b"}' % KEY.replace(b"r", rb"\\u0072"), [KEY])


@given(st.lists(VALUES, max_size=6), st.sampled_from([None, 1]))
def test_items_of_an_array_are_counted(values: list[Any], indent: int | None) -> None:
    """Those of the outermost array, whatever they hold."""
    assert items_of(json.dumps(values, indent=indent).encode()) == len(values)


def test_items_of_a_large_array_are_counted() -> None:
    """It is gone through in pieces."""
    values = [["a,]", {"b": ["\\", '"']}], "token", 1, {}] * 40_000
    assert items_of(json.dumps(values).encode()) == len(values)
