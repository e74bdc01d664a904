"""The headers Prefer and Cancel-After."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.prefer import parse_cancel_after, parse_prefer


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("wait", 60), (" wait ", 60), ("wait=1", 1), ("wait=10", 10), ("wait=60", 60), ("wait=99", 60)],
)
def test_prefer_wait_says_how_long_to_wait(header, seconds):
    """`wait` is a minute; 61 to 99, which upstream's pattern admits, are a minute too."""
    assert parse_prefer(header) == seconds


@given(st.integers(1, 99))
def test_every_number_that_upstream_admits_is_accepted(n):
    """Never held longer than asked for, nor longer than a minute."""
    assert parse_prefer(f"wait={n}") == min(n, 60)


@pytest.mark.parametrize(
    "header", ["", "wait=", "wait=0", "wait=05", "wait=100", "wait=1.5", "wait=-1", "wait 5", "Wait", "respond-async",
               "wait, respond-async", "wait=٥", "wait=10s"],
)  # fmt: skip
def test_invalid_prefer_is_refused(header):
    """A typing error in the header is reported, not guessed at."""
    with pytest.raises(ValueError, match="expected wait"):
        parse_prefer(header)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None), ("30", 30), ("90s", 90), ("1m30s", 90), ("2h30m", 9000), ("5", 5), ("5s", 5), ("24h", 86400),
        ("86400", 86400), ("1440m", 86400), (" 1m ", 60), ("1h1m1s", 3661), ("0h10s", 10), ("0030", 30),
    ],
)  # fmt: skip
def test_cancel_after_is_seconds_or_a_combination(header, seconds):
    """The forms of Replicate's documentation."""
    assert parse_cancel_after(header) == seconds


@pytest.mark.parametrize(
    "header",
    ["", " ", "4", "4s", "0", "86401", "24h1s", "25h", "1h30", "1m30", "s", "h", "1d", "1.5h", "-5", "30 s", "1s1m",
     "1m1h", "1h1h", "5S", "٣٠", "１０s", "9" * 30],
)  # fmt: skip
def test_other_durations_are_refused(header):
    """Too short, too long, without a unit, in another order: refused before anything is spent."""
    with pytest.raises(ValueError, match=r"expected|needs"):
        parse_cancel_after(header)


@given(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_combination_is_the_sum_of_its_parts(hours, minutes, seconds):
    """One rule for all combinations."""
    total = hours * 3600 + minutes * 60 + seconds
    text = f"{hours}h{minutes}m{seconds}s"
    if total < 5:
        with pytest.raises(ValueError, match="at least"):
            parse_cancel_after(text)
    else:
        assert parse_cancel_after(text) == total


@given(st.text(max_size=20))
def test_any_text_is_accepted_within_limits_or_refused(text):
    """Nothing in a header makes the gateway fail."""
    for parse, low, high in ((parse_prefer, 1, 60), (parse_cancel_after, 5, 86400)):
        try:
            seconds = parse(text)
        except ValueError:
            continue
        assert seconds is not None
        assert low <= seconds <= high
