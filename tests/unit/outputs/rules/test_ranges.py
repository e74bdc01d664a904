"""Conditions and ranges, as RFC 9110 has them."""

import pytest

from gateway.outputs.rules.ranges import Failed, NotModified, Part, Selection, Unsatisfiable, Whole, http_date, select

TAG = '"abc"'
AT = 1_764_000_000.75
ON = "Mon, 24 Nov 2025 16:00:00 GMT"
BEFORE, AFTER = "Mon, 24 Nov 2025 15:59:59 GMT", "Mon, 24 Nov 2025 16:00:01 GMT"


def ask(size: int = 100, *, is_head: bool = False, **headers: str) -> Selection:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return select(given, etag=TAG, modified_at=AT, size=size, is_head=is_head)


def test_dates_are_written_as_headers_have_them():
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
def test_one_range_is_given_and_what_is_not_understood_is_passed_over(text: str, selection: Selection):
    assert ask(Range=text) == selection


def test_of_nothing_no_range_can_be_given():
    assert ask(0) == Whole()
    assert ask(0, Range="bytes=0-") == Unsatisfiable()
    assert ask(0, Range="bytes=-5") == Unsatisfiable()


def test_a_head_tells_of_the_whole():
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
    """Who has the file gets nothing; who has an older one gets the whole, not a part that does not fit."""
    assert ask(**headers) == selection
