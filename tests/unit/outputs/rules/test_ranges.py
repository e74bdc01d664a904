"""Conditions and ranges, as RFC 9110 has them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from gateway.outputs.rules.ranges import Failed, NotModified, Part, Selection, Unsatisfiable, Whole, http_date, select

TAG = '"abc"'
AT = 1_764_000_000.75
ON = "Mon, 24 Nov 2025 16:00:00 GMT"
BEFORE, AFTER = "Mon, 24 Nov 2025 15:59:59 GMT", "Mon, 24 Nov 2025 16:00:01 GMT"


def ask(size: int = 100, *, is_head: bool = False, **headers: str) -> Selection:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return select(given, etag=TAG, modified_at=AT, size=size, is_head=is_head)


def test_dates_are_written_as_in_headers():
    assert http_date(AT) == ON


@pytest.mark.parametrize(
    ("text", "selection"),
    [
        ("bytes=0-0", Part(0, 1)),
        ("bytes=0-", Part(0, 100)),
        ("bytes=99-", Part(99, 100)),
        ("bytes=10-19", Part(10, 20)),
        ("bytes=90-1000", Part(90, 100)),
        ("bytes=-1", Part(99, 100)),
        ("bytes=-100", Part(0, 100)),
        ("bytes=-101", Part(0, 100)),
        ("BYTES = 1 - 2", Part(1, 3)),
        ("bytes=100-", Unsatisfiable()),
        ("bytes=100-200", Unsatisfiable()),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=0-1,5-6", Whole()),
        ("bytes=5-4", Whole()),
        ("bytes=-", Whole()),
        ("bytes=a-b", Whole()),
        ("bytes=1", Whole()),
        ("items=0-1", Whole()),
        ("bytes=٣-4", Whole()),
        ("bytes=" + "9" * 19 + "-", Whole()),
        ("", Whole()),
    ],
)
def test_one_range_is_served_and_invalid_ranges_are_ignored(text: str, selection: Selection):
    assert ask(Range=text) == selection


def test_empty_file_has_no_range():
    assert ask(0) == Whole()
    assert ask(0, Range="bytes=0-") == Unsatisfiable()
    assert ask(0, Range="bytes=-5") == Unsatisfiable()


def test_head_ignores_ranges():
    assert ask(is_head=True, Range="bytes=0-1") == Whole()
    assert ask(is_head=True, If_None_Match=TAG) == NotModified()


@pytest.mark.parametrize(
    ("headers", "selection"),
    [
        ({"If_None_Match": '"abc"'}, NotModified()),
        ({"If_None_Match": 'W/"abc"'}, NotModified()),
        ({"If_None_Match": '"x", W/"y" , "abc"'}, NotModified()),
        ({"If_None_Match": "*"}, NotModified()),
        ({"If_None_Match": '"ab"'}, Whole()),
        ({"If_None_Match": "abc"}, Whole()),
        ({"If_None_Match": '"x"', "If_Modified_Since": AFTER}, Whole()),
        ({"If_Modified_Since": ON}, NotModified()),
        ({"If_Modified_Since": AFTER}, NotModified()),
        ({"If_Modified_Since": BEFORE}, Whole()),
        ({"If_Modified_Since": "yesterday"}, Whole()),
        ({"If_Modified_Since": "Mon, 24 Nov 99999999999999 16:00:00 GMT"}, Whole()),
        ({"If_Modified_Since": "Mon, 24 Nov 2025 16:00:00"}, NotModified()),
        ({"If_Match": '"abc"'}, Whole()),
        ({"If_Match": "*"}, Whole()),
        ({"If_Match": 'W/"abc"'}, Failed()),
        ({"If_Match": '"x"'}, Failed()),
        ({"If_Unmodified_Since": ON}, Whole()),
        ({"If_Unmodified_Since": BEFORE}, Failed()),
        ({"If_Match": "*", "If_Unmodified_Since": BEFORE}, Whole()),
        ({"If_None_Match": '"abc"', "Range": "bytes=0-1"}, NotModified()),
        ({"If_Range": '"abc"', "Range": "bytes=0-1"}, Part(0, 2)),
        ({"If_Range": '"x"', "Range": "bytes=0-1"}, Whole()),
        ({"If_Range": 'W/"abc"', "Range": "bytes=0-1"}, Whole()),
        ({"If_Range": ON, "Range": "bytes=0-1"}, Part(0, 2)),
        ({"If_Range": AFTER, "Range": "bytes=0-1"}, Whole()),
        ({"If_Range": "x", "Range": "bytes=0-1"}, Whole()),
    ],
)
def test_conditions_come_before_ranges(headers: dict[str, str], selection: Selection):
    """A client that has the file gets nothing; one with an older file gets the whole, not a part that does not fit."""
    assert ask(**headers) == selection


# aiohttp parses the same headers for its file responses. Where both define a result, the results are equal.

NUMBER = st.integers(0, 150).map(str)
RANGES = st.one_of(
    st.builds("bytes={}-{}".format, NUMBER, NUMBER),
    st.builds("bytes={}-".format, NUMBER),
    # RFC 9110, 14.1.2: a suffix of no bytes is unsatisfiable; aiohttp takes "-0" for the whole file.
    st.builds("bytes=-{}".format, st.integers(1, 150).map(str)),
    st.text("0123456789-,", max_size=6).filter(lambda text: int(text[1:] or "1") if text[1:].isdigit() else True)
    .map("bytes={}".format),
)  # fmt: skip
TIMES = st.floats(86_400.0, 4_000_000_000.0).map(lambda at: datetime.fromtimestamp(at, UTC))


def by_aiohttp(**headers: str) -> web.BaseRequest:
    return make_mocked_request("GET", "/", {name.replace("_", "-"): value for name, value in headers.items()})


def range_by_aiohttp(text: str, size: int) -> Selection:
    """What aiohttp's own file responses select, except that an invalid range is ignored, as the RFC says."""
    try:
        wanted = by_aiohttp(Range=text).http_range
    except ValueError:
        return Whole()
    start = wanted.start if wanted.start >= 0 else max(0, wanted.start + size)
    stop = min(size, wanted.stop) if wanted.stop is not None else size
    return Part(start, stop) if start < size else Unsatisfiable()


@given(RANGES, st.integers(0, 120))
def test_range_selects_what_aiohttp_selects(text: str, size: int):
    """A player that seeks gets the same bytes as from a file that aiohttp serves."""
    assert ask(size, Range=text) == range_by_aiohttp(text, size)


@given(TIMES, TIMES)
def test_if_range_date_is_read_as_aiohttp_reads_it(modified: datetime, named: datetime):
    """A download is continued if the date in `If-Range` is the file's, and starts again if it is not."""
    for each in (named, modified):
        text = http_date(each.timestamp())
        is_same = by_aiohttp(If_Range=text).if_range == modified.replace(microsecond=0)
        headers = {"If-Range": text, "Range": "bytes=0-1"}
        found = select(headers, etag=TAG, modified_at=modified.timestamp(), size=100)
        assert found == (Part(0, 2) if is_same else Whole())


@given(TIMES, TIMES)
def test_modification_dates_are_read_as_aiohttp_reads_them(modified: datetime, named: datetime):
    """A cache that has the newest file gets 304; a client that insists on an older one gets 412."""
    text = http_date(named.timestamp())
    since = by_aiohttp(If_Modified_Since=text).if_modified_since
    assert since is not None
    is_newer = modified.replace(microsecond=0) > since
    file: dict[str, Any] = {"etag": TAG, "modified_at": modified.timestamp(), "size": 100}
    assert select({"If-Modified-Since": text}, **file) == (Whole() if is_newer else NotModified())
    assert select({"If-Unmodified-Since": text}, **file) == (Failed() if is_newer else Whole())


# Without the empty tag, at which aiohttp stops reading a list.
@given(st.lists(st.sampled_from(['"abc"', 'W/"abc"', '"x"', 'W/"x"', '"a,b"']), min_size=1, max_size=4))
def test_entity_tags_are_read_as_aiohttp_reads_them(tags: list[str]):
    """A list of tags names the file in `If-None-Match` also by its weak tag, in `If-Match` only by its strong one."""
    text = ", ".join(tags)
    weakly, strongly = by_aiohttp(If_None_Match=text).if_none_match, by_aiohttp(If_Match=text).if_match
    assert weakly is not None
    assert strongly is not None
    is_known = any(each.value == "abc" for each in weakly)
    is_wanted = any(each.value == "abc" and not each.is_weak for each in strongly)
    assert ask(If_None_Match=text) == (NotModified() if is_known else Whole())
    assert ask(If_Match=text) == (Whole() if is_wanted else Failed())
