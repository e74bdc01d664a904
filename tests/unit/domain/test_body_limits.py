"""What one JSON body holds, counted before it is decoded."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.domain.body_limits import BodyLimits, excess_of, excess_steps, is_surely_within
from gateway.domain.json_scan import SLICE
from tests.support.json_strategies import LINKED_VALUES, SPECIAL_TEXTS


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


PADS = st.sampled_from(
    [{}]
    + [
        {"a long text": text}
        for text in (
            "[{:,é" * 1000,
            '[{:,\n"\\' * 1000,
            "[{:,\n" * 1000 + 'a "word" \\',
            "\\" * 5000,
            "x" * 5000 + '\\"',
        )
    ]
)
"""What makes a body long enough to be scanned for the ends of its texts."""


@given(st.dictionaries(SPECIAL_TEXTS, LINKED_VALUES, max_size=3), st.sampled_from([None, 1]), st.booleans(), PADS)
@example({"a": [[], {}, [[]]]}, None, False, {})
@example({"a": '"\\"'}, 1, True, {})
@example({"a": [[""] * 99]}, None, False, {"a long text": "[" * 5000})
def test_counts_are_those_of_the_decoded_value(
    body: dict[str, Any], indent: int | None, is_ascii: bool, pad: dict[str, Any]
) -> None:
    """Exactly as much as a limit says is allowed, whatever the spelling and whatever texts hold."""
    body = pad | body
    text = json.dumps(body, indent=indent, ensure_ascii=is_ascii).encode()
    for name, number in (
        ("max_keys", keys_in(body)), ("max_values", values_in(body)), ("max_depth", depth_of(body)),
    ):  # fmt: skip
        assert excess_of(text, limits_at(**{name: number})) is None
        if number > 0:
            found = excess_of(text, limits_at(**{name: number - 1}))
            assert found is not None
            assert (found.limit, found.most) == (name, number - 1)


@given(st.lists(LINKED_VALUES, max_size=5), PADS)
def test_no_link_is_missed(values: list[Any], pad: dict[str, Any]) -> None:
    """A link counts in every spelling. A text that only begins like one may count, too."""
    text = json.dumps([*values, pad], ensure_ascii=False).encode()
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


def test_a_body_of_a_few_long_texts_is_within_the_limits() -> None:
    """What stands in a prompt or a data: URI does not count, and is not looked at character by character."""
    limits = BodyLimits()
    prompt = json.dumps({"input": {"prompt": "[{:,é" * 50_000, "seed": 1}}, ensure_ascii=False).encode()
    assert is_surely_within(prompt, limits)
    lines = json.dumps({"input": {"prompt": '[{:, says "I" \\ \n' * 100 + "[{:,\n" * 5_000 + "\\"}}).encode()
    assert is_surely_within(lines, limits)
    assert not is_surely_within(lines, BodyLimits(max_half_surrogates=5_000))
    assert not is_surely_within(b"[" * 129 + lines, limits)
    assert not is_surely_within(b"[" * 129 + prompt, limits)
    assert is_surely_within(b'{"input":{"seed":1}}', limits)
    assert not is_surely_within(b"[" * 129, limits)
    assert not is_surely_within(b'"' * 2001, limits)


SMALL = st.builds(
    BodyLimits,
    max_links=st.integers(0, 3),
    max_keys=st.integers(1, 3),
    max_values=st.integers(1, 4),
    max_depth=st.integers(1, 4),
    max_half_surrogates=st.integers(0, 3),
)


@given(st.text('"[]{},: \\hu', max_size=60), SMALL)
@example('{"a":' + '""' * 9 + "[" * 9, BodyLimits(max_keys=2, max_values=3, max_depth=2))
def test_text_that_is_no_json_and_holds_too_much_is_scanned_without_an_error(text: str, limits: BodyLimits) -> None:
    """Strings can follow each other without a comma."""
    found = excess_of(text.encode(), limits)
    assert found is None or found.limit in BodyLimits.__struct_fields__


@pytest.mark.parametrize("pad", range(12))
def test_the_count_is_exact_wherever_a_large_body_is_cut(pad: int) -> None:
    """A slice of it can end within an escape, between two halves, in an empty array, or where a link begins."""
    pairs = b'{"a":"' + b"x" * pad + b"\\ud83d\\ude00" * 50_000 + b'","b":[' + b"1," * 9 + b'"\\ud83d"]}'
    assert excess_of(pairs, BodyLimits(max_half_surrogates=1)) is None
    lone = b'{"a":"' + b"x" * pad + b"\\ud83d" * 100_000 + b'"}'
    assert excess_of(lone, BodyLimits(max_half_surrogates=100_000)) is None
    assert excess_of(lone, BodyLimits(max_half_surrogates=99_999)) is not None
    links = b'{"a":"' + b"x" * (SLICE - 18 + pad) + b'","b":["http://x","data:,"]}'
    assert excess_of(links, BodyLimits(max_links=1)) is not None
    assert excess_of(links, BodyLimits(max_links=2)) is None
    empty = b'{"a":"' + b"x" * (SLICE - 18 + pad) + b'","b":[[ ],{},[""],[[] ]]}'
    assert excess_of(empty, BodyLimits(max_values=9)) is None
    assert excess_of(empty, BodyLimits(max_values=8)) is not None
