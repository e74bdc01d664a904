"""Cursors of lists."""

import base64

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.domain import cursors
from gateway.domain.cursors import Cursor

CURSORS = st.builds(
    Cursor,
    at=st.floats(allow_nan=False, allow_infinity=False),
    id=st.from_regex(r"[A-Za-z0-9_=-]{1,60}", fullmatch=True),
    backward=st.booleans(),
)


def written(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@given(CURSORS)
def test_cursor_reads_back_as_written(cursor):
    """A page's links lead to the next page, in either direction, whatever form the ids have."""
    assert cursors.decode(cursors.encode(cursor)) == cursor


@given(CURSORS)
def test_cursor_fits_its_own_limit(cursor):
    """No page ends in a link that is refused."""
    assert len(cursors.encode(cursor)) <= cursors.MAX_LENGTH


def test_cursor_has_upstreams_form():
    """A client that looks inside finds what Replicate's cursors hold."""
    assert base64.b64decode(cursors.encode(Cursor(1.5, "abc"))) == b"p=1.5%7Cabc"
    assert base64.b64decode(cursors.encode(Cursor(1.5, "abc", True))) == b"r=1&p=1.5%7Cabc"


@given(CURSORS, st.data())
def test_changed_cursor_is_refused_or_another_cursor(cursor, data):
    """Only what `encode` writes is accepted: no place has two spellings."""
    text = cursors.encode(cursor)
    where = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(codec="utf-8"))
    changed = text[:where] + letter + text[where + 1 :]
    assume(changed != text)
    try:
        read = cursors.decode(changed)
    except ValueError:
        return
    assert cursors.encode(read) == changed


@given(st.text(max_size=250) | st.binary(max_size=150).map(lambda data: base64.b64encode(data).decode()))
def test_any_text_is_a_cursor_or_refused(text):
    """A cursor of upstream's, or nonsense, is a 400."""
    try:
        read = cursors.decode(text)
    except ValueError:
        return
    assert cursors.encode(read) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x" * 201,
        written("p=2023-11-15+05%3A03%3A47.203903%2B00%3A00"),
        written("p=nan%7Cabc"),
        written("p=inf%7Cabc"),
        written("p=-inf%7Cabc"),
        written("p=1.50%7Cabc"),
        written("p=1_0.0%7Cabc"),
        written("p=1.5%7C"),
        written("p=1.5%7Ca%27b"),
        written("p=1.5%7Cabc&r=1"),
        written("r=0&p=1.5%7Cabc"),
        written("p=1.5%7Cabc&p=2.5%7Cabc"),
        written("p=1.5%7Cé"),
        written("q=1"),
        written("p=1.5%7Cabc") + "=",
        " " + written("p=1.5%7Cabc"),
    ],
)
def test_other_spellings_are_refused(text):
    """Not a number, no id, another order: none of it reaches the store."""
    with pytest.raises(ValueError, match=r".*"):
        cursors.decode(text)
