"""Pure functions: cursors, pages, durations, times, ids, rate limits, validation."""

import base64
import contextlib
import random
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.simulator import ids
from gateway.simulator.clock import SimulatorClock
from gateway.simulator.headers import parse_cancel_after, parse_prefer
from gateway.simulator.models.image import pillow
from gateway.simulator.models.job import dice
from gateway.simulator.models.text import tokens
from gateway.simulator.pagination import Cursor, decode_cursor, link, take_page
from gateway.simulator.ratelimit import Bucket
from gateway.simulator.registry import Registry
from gateway.simulator.times import database_time, edge_time, exact_time, parse_time
from gateway.simulator.validation import check, with_defaults

STAMPS = st.integers(min_value=0, max_value=4_000_000_000_000_000)


def test_cursor_has_the_recorded_format():
    """The documentation's example is decoded, and encoded to the same text."""
    text = base64.b64encode(b"p=2023-11-15+05%3A03%3A47.203903%2B00%3A00").decode()
    cursor = decode_cursor(text)
    assert cursor == Cursor(parse_time("2023-11-15T05:03:47.203903Z"))
    assert cursor.encode() == text
    assert base64.b64decode(Cursor(cursor.position, reverse=True).encode()).startswith(b"r=1&p=")


@given(STAMPS, st.booleans())
def test_cursors_round_trip(position, reverse):
    """For any position."""
    assert decode_cursor(Cursor(position, reverse).encode()) == Cursor(position, reverse)


@given(st.text())
def test_invalid_cursors_are_refused(text):
    """Always with a ValueError."""
    with contextlib.suppress(ValueError):
        decode_cursor(text)


@given(st.sets(STAMPS, max_size=60), st.integers(1, 9), st.booleans(), st.integers(1, 3))
def test_pages_contain_every_item_once_in_both_directions(stamps, size, descending, every):
    """Forwards and backwards, with a filter."""
    items = sorted(stamps)

    def keep(item):
        return item % every == 0

    def page_at(cursor):
        return take_page(items, lambda item: item, size, cursor, descending=descending, keep=keep)

    pages = [page_at(None)]
    while pages[-1].next is not None:
        pages.append(page_at(pages[-1].next))
    wanted = sorted(filter(keep, items), reverse=descending)
    assert [item for page in pages for item in page.results] == wanted
    assert pages[0].previous is None
    back = [pages[-1]]
    while back[-1].previous is not None:
        back.append(page_at(back[-1].previous))
    assert [item for page in reversed(back) for item in page.results] == wanted


def test_links_keep_the_rest_of_the_query():
    """Filters are kept from page to page."""
    made = link("http://h/v1/predictions", {"created_after": "2025-01-01T00:00:00Z", "cursor": "old"}, Cursor(5))
    assert made is not None
    assert made.startswith("http://h/v1/predictions?cursor=")
    assert made.endswith("&created_after=2025-01-01T00%3A00%3A00Z")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30", 30), ("90s", 90), ("1m30s", 90), ("2h30m", 9000), ("5", 5), ("24h", 86_400), ("1h", 3600)],
)
def test_durations_are_parsed(text, seconds):
    """All documented formats."""
    assert parse_cancel_after(text) == seconds


@pytest.mark.parametrize("text", ["", "4", "4s", "25h", "1d", "30x", "m", "-5", "1.5h", "30s1m", "٣٠"])
def test_other_durations_are_refused(text):
    """Too short, too long, or malformed."""
    with pytest.raises(ValueError, match="Cancel-After"):
        parse_cancel_after(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, None), ("wait", 60), ("wait=1", 1), ("wait=60", 60), ("wait=99", 60)]
)
def test_prefer_is_parsed_like_the_openapi_pattern(text, seconds):
    """It accepts 61 to 99, which count as 60."""
    assert parse_prefer(text) == seconds


@pytest.mark.parametrize(
    ("microseconds", "edge", "database"),
    [
        (1_713_784_514_469_000, "2024-04-22T11:15:14.469Z", "2024-04-22T11:15:14.469000Z"),
        (1_713_784_514_040_000, "2024-04-22T11:15:14.04Z", "2024-04-22T11:15:14.040000Z"),
        (1_713_784_514_000_000, "2024-04-22T11:15:14Z", "2024-04-22T11:15:14Z"),
    ],
)
def test_times_are_formatted_in_both_ways(microseconds, edge, database):
    """Go trims zeros, Django writes six digits or none."""
    assert edge_time(microseconds) == edge
    assert database_time(microseconds) == database


@given(STAMPS)
def test_times_round_trip(stamp):
    """To the microsecond."""
    assert parse_time(database_time(stamp)) == stamp
    assert parse_time(exact_time(stamp, 9)) == stamp


def test_ids_have_replicates_formats():
    """26 characters with the time in the middle; old ids in the old alphabet; 48 for files."""
    made = ids.prediction_id(1_728_065_255.262)
    assert len(made) == 26
    assert made[13:19] == "0cjb2v"  # as in the recording of that day
    assert not ids.is_old_prediction_id(made)
    assert ids.is_old_prediction_id("vgcm4plb7tgzlyznry5d5jkgvu")
    assert not ids.is_old_prediction_id("vrsafsk7mnrgj0cf0p2ax766s4")
    assert ids.is_old_prediction_id(ids.old_prediction_id("x"))
    assert ids.STREAM_TOKEN.match(ids.stream_token())
    assert ids.FILE_STREAM_TOKEN.match(ids.file_stream_token())
    assert len(ids.file_id()) == 48
    assert len({ids.prediction_id(0) for _ in range(1000)}) == 1000


def test_version_ids_are_constant():
    """A frontend can hard-code them."""
    first, second = (set(Registry(SimulatorClock()).versions) for _ in range(2))
    assert first == second
    assert all(ids.VERSION_ID.match(version) for version in first)


def test_bucket_holds_a_minutes_tokens_and_refills_evenly():
    """The default burst is the rate per minute."""
    now = [0.0]
    bucket = Bucket(60, lambda: now[0])
    assert [bucket.take() for _ in range(60)] == list(range(59, -1, -1))
    assert bucket.take() is None
    assert bucket.retry_after() == 1
    now[0] = 2.0
    assert [bucket.take() for _ in range(3)] == [1, 0, None]
    slow = Bucket(6, lambda: now[0], burst=1)
    assert (slow.take(), slow.take(), slow.retry_after()) == (0, None, 10)


SCHEMA = {
    "type": "object",
    "required": ["prompt"],
    "properties": {
        "prompt": {"type": "string", "minLength": 1},
        "seed": {"type": "integer"},
        "scale": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.5},
        "image": {"type": "string", "format": "uri"},
        "kind": {"allOf": [{"$ref": "#/definitions/kind"}], "default": "a"},
        "list": {"type": "array", "items": {"type": "integer"}},
    },
}
ROOT = {"definitions": {"kind": {"type": "string", "enum": ["a", "b"]}}}


@pytest.mark.parametrize(
    ("value", "types"),
    [
        ({"prompt": "x"}, []),
        ({"prompt": "x", "seed": 1.0, "scale": 1, "image": "data:x", "kind": "b", "list": [1], "more": 1}, []),
        ({"prompt": "x", "seed": None}, []),
        ({}, ["required"]),
        ({"prompt": None}, ["invalid_type"]),
        ({"prompt": ""}, ["string_gte"]),
        ({"prompt": "x", "seed": True}, ["invalid_type"]),
        ({"prompt": "x", "seed": 1.5}, ["invalid_type"]),
        ({"prompt": "x", "scale": -1}, ["number_gte"]),
        ({"prompt": "x", "image": "not a link"}, ["format"]),
        ({"prompt": "x", "kind": "c"}, ["enum"]),
        ({"prompt": "x", "list": [1, "2"]}, ["invalid_type"]),
        ([], ["invalid_type"]),
    ],
)
def test_values_are_validated_by_schemas(value, types):
    """Each invalid location is reported once."""
    assert [each["type"] for each in check(value, SCHEMA, ROOT)] == types


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
    )
)
def test_any_json_value_can_be_validated(value):
    """Any body gets a response."""
    check(value, SCHEMA, ROOT)
    check({"prompt": value, "kind": value, "list": value}, SCHEMA, ROOT)


def test_defaults_are_filled_in():
    """Null counts as missing."""
    assert with_defaults({"prompt": "x", "scale": None}, SCHEMA) == {"prompt": "x", "scale": 0.5, "kind": "a"}


@given(st.integers(0, 300), st.text(max_size=40), st.integers())
def test_text_has_the_requested_number_of_tokens(count, prompt, seed):
    """The same generator gives the same text."""
    first = list(tokens(dice(seed), prompt, count))
    assert first == list(tokens(dice(seed), prompt, count))
    assert len(first) == count


def test_texts_contain_difficult_tokens():
    """Leading spaces, a single newline, newlines within a token."""
    made = list(tokens(random.Random(1), "x", 400))
    assert any(token.startswith(" ") for token in made)
    assert "\n" in made
    assert ".\n" in made
    assert "\n\n" in made


def test_without_pillow_the_extra_is_named(monkeypatch):
    """An image model names the extra; the others work."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(RuntimeError, match=r"\.\[simulator\]"):
        pillow()


def test_clock_refuses_invalid_values():
    """Speed must be positive, and time cannot go back."""
    with pytest.raises(ValueError, match="speed"):
        SimulatorClock(0)
    with pytest.raises(ValueError, match="advance"):
        SimulatorClock().advance(-1)
    clock = SimulatorClock()
    stamps = [clock.stamp() for _ in range(1000)]
    assert stamps == sorted(set(stamps))
