"""Texts that contain links."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.domain import text_links
from gateway.domain.links import file_links

PARTS = st.sampled_from(
    ["h", "ht", "http", "HTTPS", "s", ":", "/", "//", "\\", "\t", "\n", "p", "x ", "tp:/", "é", "a:b"]
)


@given(st.lists(PARTS, max_size=12), st.booleans())
@example(["http", ":"], True)
def test_few_and_many_colons_are_judged_alike(parts: list[str], is_many: bool) -> None:
    text = "".join(parts) + ": " * 101 * is_many
    plain = text.lower().replace("\t", "").replace("\n", "").replace("\\", "/")
    begins_with_one = re.match(r"\s*https?:\S", plain) is not None
    expected = begins_with_one or "http:/" in plain or "https:/" in plain
    assert text_links.is_in(text) is expected


LETTERS = st.sampled_from(["h", "H", "t", "p", "s", "ſ", ":", "/", "\\", "\t", "\n", "\r", " ", "\b", '"', "é"])
DROPPED = st.sampled_from(["", "", "\n", "\t\r", "\n" * 20])
SCHEMES = st.sampled_from(["http://", "https:/", "HTTPS:\\", "httpſ://", "http:x"]).flatmap(
    lambda scheme: st.tuples(*(st.tuples(DROPPED, st.just(letter)).map("".join) for letter in scheme)).map("".join)
)
SHORT_ESCAPES = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\b": r"\b", '"': r"\"", "\\": r"\\", "/": r"\/"}


@st.composite
def spelled_texts(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw a text, and the text as a JSON string in which each letter is spelled in any way."""
    text = "".join(draw(st.lists(LETTERS | SCHEMES | st.sampled_from(["note", "x" * 40]), max_size=6)))
    by_number = draw(st.booleans())
    spelled = "".join(
        f"\\u{ord(letter):04x}"
        if by_number and draw(st.integers(0, 9)) == 0
        else SHORT_ESCAPES[letter]
        if letter in SHORT_ESCAPES and (letter != "/" or draw(st.booleans()))
        else letter
        for letter in text
    )
    return text, f'"{spelled}"'.encode()


@given(spelled_texts(), st.sampled_from(["", "x" * 5000, ": " * 99]), st.sampled_from([0, 1, 40]))
def test_input_with_a_link_is_never_passed_over(spelled: tuple[str, bytes], pad: str, fields: int) -> None:
    """Neither a link that makes a result depend on others, nor one to a file, which needs a permission."""
    text, written = spelled
    given = b'{"pad":"%b","a":[%b]%b}' % (pad.encode(), written, b',"b":1' * fields)
    assert json.loads(given)["a"] == [text]
    if text_links.is_in(text) or file_links(given):
        assert text_links.may_be_in(given)


@given(spelled_texts())
def test_file_link_is_never_passed_over(spelled: tuple[str, bytes]) -> None:
    """A text that either kind of reader takes for the address of a file."""
    _, written = spelled
    given = b'{"a":%b}' % (written[:-1] + b'x.example/v1/files/abcdefgh"')
    if file_links(given):
        assert text_links.may_be_in(given)


@pytest.mark.parametrize("text", ["Title: a\nText: b\n", "one\ntwo", 'say "x": y', "\u00e9t\u00e9", "note:" * 30])
def test_texts_of_several_lines_are_seen_to_have_no_link(text: str) -> None:
    given = json.dumps({"prompt": "a prompt " + text, "seed": 1}).encode()
    assert not text_links.may_be_in(given)


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
