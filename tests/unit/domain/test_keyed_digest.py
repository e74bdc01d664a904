"""Digests with a secret."""

import hmac

from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.keyed_digest import Mac


@given(st.binary(max_size=200), st.binary(max_size=40), st.lists(st.binary(max_size=200), max_size=3))
def test_mac_is_that_of_the_standard_library(key, start, rests):
    """Also for keys longer than a block, and for one message after another."""
    mac = Mac(key, start)
    assert [mac.digest(rest) for rest in rests] == [hmac.digest(key, start + rest, "sha256") for rest in rests]
