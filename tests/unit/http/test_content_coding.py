"""Accept-Encoding: RFC 9110, 12.5.3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.content_coding import choose

LARGE, SMALL = 10_000, 100


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None), ("gzip", "gzip"), ("deflate", "deflate"), ("gzip, deflate, br", "gzip"), ("br", None),
        ("identity", None), ("*", "gzip"), ("*;q=0.5, identity;q=0.1", "gzip"), ("gzip;q=0", None),
        ("gzip;q=1.0, deflate;q=0", "gzip"), ("gzip;q=0, deflate", "deflate"), ("gzip;q=0.4, deflate;q=0.5", "deflate"),
        ("*;q=0, gzip", "gzip"), ("*;q=0", None), ("gzip;q=0.5, identity;q=0.6", None),
        ("gzip;q=0.5, identity;q=0.5", "gzip"), ("x-gzip", "gzip"), ("GZIP;Q=1", "gzip"), ("gzip ; q=0.001", "gzip"),
        ("gzip;q=1.5", None), ("gzip;q=0.1234", None), ("gzip;q=nan", None), ("gzip;q=", None), ("gzip;", "gzip"),
        ("gzip;q=0, gzip", None), ("gzipped", None), (", ,gzip,", "gzip"), ("a," * 64 + "gzip", None),
    ],
)  # fmt: skip
def test_coding_with_the_highest_weight_is_chosen(accepted, coding):
    """A weight of 0 means not acceptable; what cannot be read is not acceptable either."""
    chosen = choose(accepted, LARGE)
    assert (None if chosen is None else chosen.value) == coding


def test_small_body_is_compressed_only_for_a_client_that_refuses_it_otherwise():
    """Compression does not pay for a few bytes."""
    assert choose("gzip", SMALL) is None
    chosen = choose("identity;q=0, gzip", SMALL)
    assert chosen is not None
    assert chosen.value == "gzip"


@given(st.text('gzipdeflatx*;=q.01 ,"\\', max_size=80))
def test_any_header_is_read(accepted):
    """No header is an error."""
    choose(accepted, LARGE)
