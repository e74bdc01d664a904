"""Base 32 of digests."""

import base64

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.domain import base32


@given(st.binary(min_size=32, max_size=32))
@example(bytes(32))
@example(b"\xff" * 32)
def test_digest_is_encoded_as_the_standard_says(digest):
    """Tickets that are stored were encoded by Python's own function."""
    assert base32.encode(digest) == base64.b32encode(digest).decode().rstrip("=").lower()
