"""A response whose head is one text. `tests/gateway/test_wire_headers.py` has the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.response import Fields


def test_fields_are_lines_without_what_is_merged_with_the_common_headers():
    """`Vary` and `Cache-Control` are in the response once, with what every response adds."""
    fields = Fields({"Content-Type": "a/b", "Vary": "Accept", "Cache-Control": "private", "ETag": '"x"'})
    assert (fields.lines, fields.vary, fields.cache_control) == (
        'Content-Type: a/b\r\nETag: "x"\r\n', "Accept, Origin", "private",
    )  # fmt: skip
    assert (Fields({}).lines, Fields({}).vary, Fields({}).cache_control) == ("", "Origin", "no-store")


@given(value=st.text(), control=st.sampled_from("\r\n\x00\x0b\x7f"), rest=st.text())
def test_control_characters_are_refused(value: str, control: str, rest: str):
    """A line break in a value would begin a header of somebody else's choice."""
    with pytest.raises(ValueError, match="control character"):
        Fields({"Location": value + control + rest})


@given(value=st.text(st.characters(exclude_categories=["Cc"])))
def test_other_texts_are_kept(value: str):
    """A header has what it was given."""
    assert Fields({"X-Name": f"\t{value}"}).lines == f"X-Name: \t{value}\r\n"
