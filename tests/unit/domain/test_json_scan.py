"""Fast scans of JSON text that is not decoded yet."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.json_scan import (
    LINK_START,
    SLICE,
    contains,
    has_more_than,
    holds,
    items_of,
    link_starts,
    mask,
    unmask,
)
from tests.support.json_strategies import LINKED_VALUES, SPECIAL_TEXTS

KEY = b"rgw_abc123def456_" + b"Az09" * 8


@given(SPECIAL_TEXTS)
def test_a_masked_text_keeps_its_places(text: str) -> None:
    """Each quote that is left delimits a string."""
    written = json.dumps([text, 1]).encode()
    masked = mask(written)
    assert len(masked) == len(written)
    assert masked.count(b'"') == 2
    assert unmask(masked) == written


@pytest.mark.parametrize("lead", range(4))
@pytest.mark.parametrize("unit", [rb"\\", rb"\"", rb"\\\"", rb"x\\"])
def test_a_large_text_is_masked_like_a_small_one(unit: bytes, lead: int) -> None:
    """Pairs of backslashes are not cut where the work on a large text is."""
    text = b"x" * lead + unit * (SLICE // len(unit) + 10)
    assert mask(text) == b"x" * lead + mask(unit) * (SLICE // len(unit) + 10)


@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        KEY.replace(b"r", rb"\u0072"),
        KEY.replace(b"A", rb"\u0041").replace(b"z", rb"\u007A"),
        b"".join(rb"\u%04x" % letter for letter in KEY),
        b"".join(b"%%%02x" % letter for letter in KEY),
        KEY.replace(b"_", b"%5F").replace(b"z", b"%7a"),
        KEY.replace(b"r", b"%72").replace(b"A", rb"\u0041"),
        KEY.replace(b"r", rb"\u002572"),
    ],
)
@pytest.mark.parametrize("more", [b"", rb"\\ \" \/ \n \ud83d", rb"\\\u0041", b"\xff", rb"\u4e2d\ud83d\ude00"])
def test_a_secret_is_found_in_every_spelling(spelled: bytes, more: bytes) -> None:
    """Also beside escapes of other letters, and bytes that are no text."""
    assert holds(b'{"a":"%b%b%b"}' % (more, spelled, more), [b"another", KEY])
    assert not holds(b'{"a":"%b%b"}' % (more, spelled[:-1]), [KEY])


@pytest.mark.parametrize("lead", [0, SLICE - 1, SLICE - len(KEY), 3 * SLICE - 2])
def test_a_percent_encoded_secret_is_found_anywhere_in_a_large_text(lead: int) -> None:
    """A large text is searched in pieces."""
    encoded = b"".join(b"%%%02X" % letter for letter in KEY)
    assert holds(b"%" * lead + encoded + b"%72" * SLICE, [KEY])
    assert not holds(b"%" * lead + encoded[:-1] + b"%72" * SLICE, [KEY])


@pytest.mark.parametrize("lead", [SLICE - 40, SLICE - 1, SLICE, 2 * SLICE - 1, 3 * SLICE - 300])
@pytest.mark.parametrize("unit", [b"x", rb"\\", rb"\u4e2d"])
@pytest.mark.parametrize(
    "spelled",
    [
        KEY,
        b"".join(rb"\u%04x" % letter for letter in KEY),
        b"".join(b"%%%02x" % letter for letter in KEY),
        b"".join(b"".join(rb"\u%04x" % part for part in b"%%%02x" % letter) for letter in KEY),
    ],
)
def test_a_secret_is_found_wherever_a_large_text_is_cut(spelled: bytes, unit: bytes, lead: int) -> None:
    """Its longest spelling may begin at the end of one piece."""
    before = unit * (lead // len(unit))
    assert holds(b'"%b%b%b"' % (before, spelled, unit * SLICE), [b"another", KEY])
    assert not holds(b'"%b%b%b"' % (before, spelled[:-1], unit * SLICE), [KEY])


@pytest.mark.parametrize("lead", [0, 10, SLICE - 4, SLICE - 1, SLICE, 3 * SLICE - 2])
def test_a_part_is_found_wherever_a_large_text_is_cut(lead: int) -> None:
    text = b"\\" * lead + rb"\u00" + b"\\" * SLICE
    assert contains(text, rb"\u00")
    assert not contains(text, rb"\u01")


@given(st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_letters_are_counted_up_to_a_number(count: int, most: int, is_large: bool) -> None:
    text = (b"x" * (SLICE // 5 if is_large else 1)).join([b"\\"] * count)
    assert has_more_than(most, text, b"\\") is (count > most)


@pytest.mark.parametrize("lead", [0, SLICE - 300, SLICE - 3, SLICE - 1, SLICE, SLICE + 1])
@pytest.mark.parametrize(
    "start", [b'"http://a"', b'"' + rb"\u0020" * 30 + rb'\u0068\nttp://a"', b'"' + b" " * 40 + b'"']
)
def test_links_are_found_wherever_a_large_text_is_cut(start: bytes, lead: int) -> None:
    """Each is found once."""
    text = b"x" * lead + (start + b",") * 1000 + b"x" * SLICE + start
    found = [each.start() for each in link_starts(text)]
    assert found == [each.start() for each in LINK_START.finditer(text)]
    assert len(found) >= 1001


def test_an_escaped_backslash_begins_no_escape() -> None:
    r"""`\\u0072` is a backslash and the letters `u0072`."""
    assert not holds(b'{"a":"%b"}' % KEY.replace(b"r", rb"\\u0072"), [KEY])


@given(st.lists(LINKED_VALUES, max_size=6), st.sampled_from([None, 1]))
def test_items_of_an_array_are_counted(values: list[Any], indent: int | None) -> None:
    """Those of the outermost array, whatever they hold."""
    assert items_of(json.dumps(values, indent=indent).encode()) == len(values)


def test_items_of_a_large_array_are_counted() -> None:
    """It is gone through in pieces."""
    values = [["a,]", {"b": ["\\", '"']}], "token", 1, {}] * 40_000
    assert items_of(json.dumps(values).encode()) == len(values)
