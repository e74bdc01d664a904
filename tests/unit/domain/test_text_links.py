"""Texts that contain links."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import text_links

PARTS = st.sampled_from(
    ["h", "ht", "http", "HTTPS", "s", ":", "/", "//", "\\", "\t", "\n", "p", "x ", "tp:/", "é", "a:b"]
)


@given(st.lists(PARTS, max_size=12), st.booleans())
def test_few_and_many_colons_are_judged_alike(parts: list[str], is_many: bool) -> None:
    text = "".join(parts)
    plain = text.lower().replace("\t", "").replace("\n", "").replace("\\", "/")
    begins_with_one = re.match(r"\s*https?:\S", plain) is not None
    expected = begins_with_one or "http:/" in plain or "https:/" in plain
    assert text_links.is_in(text + ": " * 101 * is_many) is expected


@given(st.lists(PARTS, max_size=12), st.booleans(), st.sampled_from(["", "x" * 5000, ": " * 99]))
def test_input_with_a_link_is_never_passed_over(parts: list[str], is_ascii: bool, pad: str) -> None:
    text = "".join(parts)
    if text_links.is_in(text):
        given = json.dumps({"pad": [pad] * 50, "a": [text]}, ensure_ascii=is_ascii).encode()
        assert text_links.may_be_in(given)
        # Control characters are no JSON in a text, but whoever reads it may pass them over.
        assert text_links.may_be_in(given.replace(rb"\t", b"\t").replace(rb"\n", b"\n"))


def test_long_text_without_a_link_may_have_colons() -> None:
    for colons in (9, 999):
        assert not text_links.may_be_in(b'{"a":"%b%b"}' % (b"x" * 5000, b"note: see " * colons))


def test_link_between_two_pieces_of_a_large_input_is_found() -> None:
    for pad in range(65_525, 65_540):
        assert text_links.may_be_in(b'"' + b"a" * pad + b'HTTP://x"')
    assert not text_links.may_be_in(b'"' + b"a" * 200_000 + b'"')


@pytest.mark.parametrize("value", [["http://a"], {"http://a": 1}, {"a": [{"b": "see http://a"}]}, "http://a"])
def test_link_is_found_at_any_depth(value: object) -> None:
    assert text_links.find([1, None, value]) is not None
    assert text_links.find([value], lambda _: True) is None
