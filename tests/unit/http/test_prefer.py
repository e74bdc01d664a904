"""The headers Prefer and Cancel-After."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.prefer import parse_cancel_after, parse_prefer


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], None), (["wait"], 60), ([" wait "], 60), (["wait=1"], 1), (["wait=60"], 60), (["wait=61"], 60),
        (["wait=120"], 60), (["wait=300"], 60), (["wait=" + "9" * 5000], 60), (["wait=007"], 7), (["Wait=3"], 3),
        (["wait = 5"], 5), (['wait="5"'], 5), (['wait=""'], 60), (["wait=5; x=y"], 5), (["wait;x"], 60),
        (["wait, wait=5"], 60), (["wait=3, wait=5"], 3), (["wait=soon, wait=3"], 3), (["wait=0, wait=3"], 3),
        (["respond-async, wait=5"], 5), (["wait=5, respond-async"], 5), (["respond-async", "wait=4"], 4),
        (["wait=x", "", ",,", "wait=2", "wait=9"], 2), (["handling=lenient; x=y, wait=5"], 5),
        (['return="minimal, wait=7", wait=5'], 5), (['a="b\\", wait=7", wait=5'], 5), (['a="b, wait=7'], None),
        (['wait="5", a="'], 5), (["wait=5,wait"], 5),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_first_valid_wait_of_all_preferences_counts(headers, seconds):
    """RFC 7240: lists and repeated headers, quoted values, names without case; above a minute it is a minute."""
    assert parse_prefer(headers) == seconds


@given(st.integers(1, 10**6))
def test_wait_is_never_longer_than_asked_nor_than_a_minute(n):
    """Programs send 120 and 300."""
    assert parse_prefer([f"wait={n}"]) == min(n, 60)


@pytest.mark.parametrize(
    "header", ["", "wait=", "wait=0", "wait=00", "wait=1.5", "wait=-1", "wait=+5", "wait 5", "respond-async",
               "wait=\u0665", "wait=10s", "awaits", "x" * 4000, "wait=five", 'wait="5', '"wait"', "a=wait"],
)  # fmt: skip
def test_other_preferences_are_ignored(header):
    """A preference that a server does not know must be ignored (RFC 7240, 2), so the create does not wait."""
    assert parse_prefer([header]) is None


@given(st.lists(st.text('wait=0159",;\\ \txé', max_size=30), max_size=4))
def test_any_header_is_read_without_an_error(headers):
    """Whatever a client sends, the create goes on."""
    assert parse_prefer(headers) is None or 1 <= parse_prefer(headers) <= 60


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
    try:
        seconds = parse_cancel_after(text)
    except ValueError:
        return
    assert seconds is not None
    assert 5 <= seconds <= 86400
