"""Parsing and formatting of durations."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.commands.durations import parse_duration

HUNDRED_YEARS = 36_500 * 86_400


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90d", 7_776_000),
        ("12h", 43_200),
        ("30m", 1_800),
        ("45s", 45),
        ("1h30m", 5_400),
        ("1w", 604_800),
        ("1d2h3m4s", 93_784),
        ("0d5s", 5),
        ("100m", 6_000),
        ("36500d", HUNDRED_YEARS),
    ],
)
def test_durations_are_parsed(text, seconds):
    """90d is ninety days."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "a duration is needed"),
        ("90", "not a duration: '90'; expected a whole number and a unit"),
        ("d", "not a duration"),
        ("1.5h", "not a duration"),
        ("-1h", "not a duration"),
        ("1 h", "not a duration"),
        (" 1h", "not a duration"),
        ("1h ", "not a duration"),
        ("1h\n", "not a duration"),
        ("٣d", "not a duration"),
        ("1D", "not a duration"),
        ("5y", "unknown unit 'y' in '5y'; the units are w, d, h, m, s"),
        ("30m1h", "units go from large to small"),
        ("1h1h", "units go from large to small"),
        ("0s", "cannot be zero"),
        ("0h0m", "cannot be zero"),
        ("36501d", "at most 100 years"),
        ("999999999999d", "not a duration"),
    ],
)
def test_invalid_durations_are_refused_with_a_reason(text, complaint):
    """With an example of a valid one."""
    with pytest.raises(ValueError, match=complaint):
        parse_duration(text)


@given(st.text(max_size=12) | st.text("0123456789dhmsw", max_size=12))
def test_any_text_is_a_duration_or_refused(text):
    """No input crashes, and no duration is negative or endless."""
    with suppress(ValueError):
        assert 0 < parse_duration(text) <= HUNDRED_YEARS
