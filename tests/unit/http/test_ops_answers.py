"""Queries and answers of the ops listener."""

from typing import Annotated

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request

from gateway.errors import Unprocessable
from gateway.http.ops.answers import read_query, wants_csv


class Query(msgspec.Struct, forbid_unknown_fields=True):
    team: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1)] = 5


@pytest.mark.parametrize(
    ("accept", "is_csv"),
    [
        ("", False),
        ("*/*", False),
        ("text/csv", True),
        ("TEXT/CSV; charset=utf-8", True),
        ("text/csv, application/json;q=0.5", True),
        ("application/json, text/csv", False),
        ("application/json;q=0.5, text/csv;q=0.4", False),
        ("text/csv;q=0", False),
        ("text/csv;q=x", False),
        ("text/html, text/csv;q=0.9, */*;q=0.1", True),
    ],
)
def test_csv_is_what_the_header_prefers(accept: str, is_csv: bool):
    """JSON is the default (RFC 9110, 12.5.1)."""
    assert wants_csv(make_mocked_request("GET", "/", headers={"Accept": accept})) is is_csv


def test_a_query_becomes_a_struct():
    """Numbers are read as such, and `null` is a text like others."""
    assert read_query(make_mocked_request("GET", "/?team=null&limit=7"), Query) == Query("null", 7)
    assert read_query(make_mocked_request("GET", "/"), Query) == Query()


@pytest.mark.parametrize(
    ("query", "field"),
    [("team=", "team"), ("team=a&team=b", "team"), ("limit=x", "limit"), ("limit=0", "limit"), ("other=1", "other")],
)
def test_a_query_that_is_not_understood_names_its_field(query: str, field: str):
    """Nothing is ignored."""
    with pytest.raises(Unprocessable) as refused:
        read_query(make_mocked_request("GET", f"/?{query}"), Query)
    assert [each.field for each in refused.value.fields] == [field]


def test_a_long_name_is_not_repeated_whole():
    """A message has the beginning of what a request sends."""
    for query in ("x" * 5000 + "=1", "x" * 5000 + "="):
        with pytest.raises(Unprocessable) as refused:
            read_query(make_mocked_request("GET", f"/?{query}"), Query)
        assert len(refused.value.detail) < 1200
