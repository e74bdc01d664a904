"""Fast scans of JSON text that is not decoded yet."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.json_scan import SLICE, holds, items_of, mask, unmask
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
