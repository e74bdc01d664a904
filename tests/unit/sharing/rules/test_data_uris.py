"""data: URIs are compared by the bytes that they contain."""

import base64
from hashlib import sha256
from urllib.parse import quote, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sharing.rules.data_uris import content_of
from tests.support.growth import assert_linear

MEDIA = st.sampled_from(["", "image/png", "text/plain;charset=utf-8", 'a/b;x=%20;name="y z"', "IMAGE/SVG+XML"])


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def sha256_of(text: str) -> str | None:
    content = content_of(text)
    return None if content is None else content.sha256


@given(st.binary(max_size=300), MEDIA, st.sampled_from(["data:", "DATA:", "Data:"]), st.sampled_from(["", ";base64"]))
def test_base64_and_percent_encoded_files_are_equal(data, media, scheme, form):
    """The same picture sent as PNG in base64, or percent-encoded without a type, is one file."""
    body = base64.b64encode(data).decode() if form else quote(data, safe="")
    assert sha256_of(f"{scheme}{media}{form},{body}") == digest(data)


@given(st.binary(max_size=300))
def test_folded_or_escaped_base64_is_the_same_file(data):
    """Python's `encodebytes` breaks lines, and URL builders escape `+`, `/` and `=`."""
    assert sha256_of("data:image/png;base64," + base64.encodebytes(data).decode()) == digest(data)
    assert sha256_of("data:image/png;base64," + quote(base64.b64encode(data).decode(), safe="")) == digest(data)


@pytest.mark.parametrize("size", [3 * 2**14 - 1, 3 * 2**14, 3 * 2**14 + 1, 3 * 2**15, 200_000])
def test_large_files_are_decoded_piecewise_without_loss(size):
    """No byte is lost or added between two pieces."""
    data = bytes(i * 7 % 251 for i in range(size))
    assert sha256_of("data:;base64," + base64.b64encode(data).decode()) == digest(data)


@pytest.mark.parametrize(
    "text",
    [
        "", "data:", "data", "data:image/png", "data:image/png;base64", "hello", " data:,a",
        "data: a,b", "data:hello,world", "data:1,2,3", "data:a/b c,d", "data:image/png;base64;base64,QQ==",
        "data:;base64,QQ=", "data:;base64,QQ", "data:;base64,Q", "data:;base64,Q=Q=", "data:;base64,=QQ=",
        "data:;base64,QQ==QQ==", "data:;base64,QQ==\x00", "data:;base64,Q-_=", "data:;base64,é===",
        "data:;base64,QQ==#x", "data:;base64,QQ%3", "data:;base64,%zz==", "data:,%4", "data:,%zz", "data:,a b",
        "data:,a#b", "data:,é", "data:,\n", "https://example.com/data:,a", "data:" + "a" * 2000 + "/b,c",
    ],
)  # fmt: skip
def test_malformed_data_uri_stays_text(text):
    """A prompt such as "data: 1,2,3" is never taken for a file."""
    assert sha256_of(text) is None


def test_padding_between_pieces_is_rejected():
    """Two base64 files in one string, joined where a piece ends, are no file."""
    first = base64.b64encode(b"x" * (3 * 2**14 - 2)).decode()
    assert len(first) == 2**16
    assert first.endswith("==")
    assert sha256_of("data:;base64," + first + "QUJD") is None


def test_empty_file_is_a_file():
    """`data:,` is what a browser makes of an empty file."""
    assert sha256_of("data:,") == sha256_of("data:;base64,") == digest(b"")


@given(st.text(max_size=60))
def test_any_text_can_be_parsed(text):
    """Whatever follows `data:`, the request is answered."""
    for uri in (text, f"data:{text}", f"data:;base64,{text}", f"data:{text},x"):
        assert sha256_of(uri) is None or len(sha256_of(uri) or "") == 64


@pytest.mark.parametrize(("start", "piece"), [("", ";a=b"), ("", "a"), (",", "%41"), (";base64,", " ")])
def test_hostile_headers_and_bodies_are_parsed_in_linear_time(start, piece):
    """No crafted text of megabytes delays other callers."""
    assert_linear(lambda n: f"data:{start}{piece * n}", sha256_of)


@given(
    st.lists(
        st.sampled_from(
            ["=", "=41", "=%0A", "%0a", "%20%0D%0A", "_", "+", "%25", "%3d", "/", "~", "a", "%00", ";base64"]
        )
    )
)
def test_plus_equals_and_underscore_are_literal_when_percent_encoded(parts):
    """They have no special meaning in a percent-encoded file."""
    text = "".join(parts)
    assert sha256_of(f"data:,{text}") == digest(unquote_to_bytes(text))


@pytest.mark.parametrize(
    "text",
    ["data:text/plain;BASE64,aGVsbG8=", "data:text/pl#ain,hello", "data:text/plain;a=#b,hello", 'data:;a="#",hello'],
)
def test_what_parsers_read_in_different_ways_is_text(text):
    """Python's urllib decodes base64 only after `;base64` in lower case; browsers end a URL at `#`."""
    assert content_of(text) is None
