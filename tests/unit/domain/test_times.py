"""Times in every form that Replicate and its clients write."""

import contextlib
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import times

SECONDS = st.integers(0, 7_258_118_400).map(lambda at: datetime.fromtimestamp(at, UTC))


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2024-04-22T11:15:14.469Z", 1713784514.469),
        ("2024-04-22T11:15:14.469000Z", 1713784514.469),
        ("2024-04-22T11:15:14.469123456Z", 1713784514.469123),
        ("2024-04-22T11:15:14.04Z", 1713784514.04),
        ("2024-04-22T11:15:14Z", 1713784514.0),
        ("2024-04-22t11:15:14z", 1713784514.0),
        ("2024-04-22 11:15:14+00:00", 1713784514.0),
        ("2024-04-22T13:15:14+02:00", 1713784514.0),
        ("2024-04-22T13:15:14+0200", 1713784514.0),
        ("2024-04-22T11:15:14,5", 1713784514.5),
        ("2024-04-22T11:15", 1713784500.0),
        ("2024-04-22", 1713744000.0),
        ("  2024-04-22T11:15:14Z ", 1713784514.0),
        ("1969-12-31T23:59:59.25Z", -0.75),
    ],
)
def test_every_form_of_a_time_is_read(text, at):
    """Both forms of upstream's responses, and the filters that people type, mean the same moment."""
    assert times.parse(text) == pytest.approx(at, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2024", "2024-13-01", "2024-02-30", "2024-04-22T", "2024-04-22T25:00:00Z", "2024-04-22T24:00:00Z",
        "2024-04-22T11:15:60Z", "2024-04-22T11:15:14.Z", "2024-04-22T11:15:14+99:99", "2024-04-22T11:15:14ZZ",
        "1713784514", "0000-01-01", "٢٠٢٤-01-01", "2024-04-22T11:15:14.٥Z", "2024-04-22T11:15:14." + "1" * 31 + "Z",
        "9999-12-31T23:59:59-00:01", "9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00+00:01",
    ],
)  # fmt: skip
def test_invalid_time_is_refused(text):
    """A filter with a typing error gets a 400, not an empty list."""
    with pytest.raises(ValueError, match=r".+"):
        times.parse(text)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.000Z"])
def test_first_and_last_time_are_written_as_they_are_read(text):
    """A key can have either as its expiry, and has to be listed."""
    assert times.render(times.parse(text)) == text


@given(SECONDS, st.text("0123456789", min_size=1, max_size=30))
def test_fraction_may_have_any_length(moment, fraction):
    """Three digits, six, nine: the moment is the same to the microsecond."""
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction}Z"
    assert times.parse(text) == pytest.approx(moment.timestamp() + float(f"0.{fraction}"), abs=1e-6)


@given(SECONDS, st.integers(0, 999))
def test_written_time_reads_back_to_the_millisecond(moment, milliseconds):
    """A time that a page got from the gateway is one it can filter by."""
    at = moment.timestamp() + milliseconds / 1000
    written = times.render(at)
    assert times.parse(written) == pytest.approx(at, abs=1e-6)
    assert times.render(times.parse(written)) == written
    assert written == f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds:03}Z"


@given(st.text(max_size=40))
def test_any_text_is_a_time_or_refused(text):
    """Nothing that a caller types makes the gateway fail."""
    with contextlib.suppress(ValueError):
        assert isinstance(times.parse(text), float)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("2024-04-22T11:15:14.604575Z", 1713784514_604575000),
        ("2024-04-22T11:15:14.04Z", 1713784514_040000000),
        ("2024-04-22T11:15:14Z", 1713784514_000000000),
        ("2024-04-22T13:15:14.123456789123+02:00", 1713784514_123456789),
        ("1969-12-31T23:59:59.25Z", -750000000),
        ("9999-12-31T23:59:59.999999999Z", 253402300799_999999999),
    ],
)
def test_time_is_read_to_the_nanosecond(text, nanoseconds):
    """The time that a run is charged for may be the difference of two of them."""
    assert times.nanoseconds(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "now", "2024-04-22", "2024-02-30T00:00:00Z", "1713784514"])
def test_invalid_time_has_no_nanoseconds(text):
    """A date has none, either."""
    with pytest.raises(ValueError, match=r".+"):
        times.nanoseconds(text)


@given(SECONDS, st.integers(0, 999_999_999))
def test_nanoseconds_agree_with_the_time(at, fraction):
    """As far as a float can tell."""
    text = f"{at:%Y-%m-%dT%H:%M:%S}.{fraction:09}Z"
    assert times.nanoseconds(text) == int(at.timestamp()) * 10**9 + fraction
    assert times.nanoseconds(text) / 10**9 == pytest.approx(times.parse(text), abs=1e-6)


@given(st.floats(-2e9, 7e9))
def test_time_is_formatted_as_the_standard_library_does_it(at):
    """To the digit: a time is cut to milliseconds, after it was rounded to microseconds."""
    expected = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert times.render(at) == expected
    assert times.render(round(at) + 0.9999996) == times.render(round(at) + 1)
