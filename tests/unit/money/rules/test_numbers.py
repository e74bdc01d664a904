"""Numbers of JSON, to the last digit."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.money.rules import numbers


@pytest.mark.parametrize(
    ("text", "number"),
    [(b"3e-06", "0.000003"), (b"0", "0"), (b"-0.0", "0"), (b" 2.492094\n", "2.492094"), (b"1E+2", "100")],
)
def test_number_is_read_as_written(text: bytes, number: str) -> None:
    """Upstream writes very short times with an exponent."""
    assert numbers.read(text) == Decimal(number)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_double_is_read_exactly(number: float) -> None:
    """Whatever upstream's encoder writes comes back."""
    assert numbers.read(json.dumps(number).encode()) == Decimal(repr(number))


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"true", b'"1"', b"NaN", b"Infinity", b"-Infinity", b"[1]", b"{}", b"1.", b".5", b"+1", b"0x10",
     b"1_000", b"1e99999", b"1e-401", b"9" * 421, "١".encode(), b"1\x00", b"1 2"],
)  # fmt: skip
def test_other_values_are_no_number(text: bytes) -> None:
    """A count in quotes is not silently taken for one."""
    assert numbers.read(text) is None


@pytest.mark.parametrize(("text", "is_whole"), [("4", True), ("4.0", True), ("4e3", True), ("4.5", False), ("0", True)])
def test_whole_number_may_be_written_in_any_form(text: str, is_whole: bool) -> None:
    """Four outputs are four, also when a client writes 4.0."""
    assert numbers.is_whole(Decimal(text)) is is_whole
