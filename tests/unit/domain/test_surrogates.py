r"""Half surrogates: `\ud83d` on its own."""

import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain import surrogates

# Texts with whole characters, halves in either order, and what only looks like an escape.
PIECES = st.lists(
    st.sampled_from(
        [r"\ud83d", r"\ude00", r"\uD83D", r"\udFfF", r"\ud83d\ude00", r"\\", r"\\ud83d", r"\"", r"\n", r"\ue000",
         r"\ue001", r"\uE000", r"\\ue000", r"\u0061", "a", "é", "😀", "ud83d", r"\/"]
    ),
    max_size=12,
).map("".join)  # fmt: skip
_HALF = re.compile("[\ud800-\udfff]")


@given(PIECES)
def test_lone_surrogate_is_read_as_upstream_reads_it(text):
    """Upstream's Go takes U+FFFD for it; the rest of the text is untouched."""
    body = b'{"a":"%s"}' % text.encode()
    whole = surrogates.without_halves(body)
    expected = _HALF.sub("\ufffd", json.loads(body)["a"])
    assert msgspec.json.decode(whole)["a"] == expected
    if not _HALF.search(json.loads(body)["a"]):
        assert whole is body


@given(PIECES, PIECES)
def test_values_keep_their_lone_surrogates_byte_for_byte(one, other):
    """A model that stops inside an emoji is shown as upstream shows it."""
    values = [b'"%s"' % one.encode(), b'[{"x":"%s"},3e-06]' % other.encode()]
    body = b'{ "a" : %s , "b":%s}' % (values[0], values[1])
    fields = surrogates.split(body)
    assert [bytes(fields["a"]), bytes(fields["b"])] == values


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"1", b'{"a":}', b'{"a":"\\ud83d"', b'{"a":"\\ud83d",}', b'{"a":"\\x\\ud83d"}']
)
def test_body_that_is_no_object_is_refused(body):
    """A lone surrogate excuses no other error."""
    with pytest.raises(msgspec.DecodeError):
        surrogates.split(body)


def test_body_that_uses_every_placeholder_is_refused():
    """With every escape in use none is left as a placeholder; nothing is shown wrongly."""
    taken = "".join(rf"\u{number:x}" for number in range(0xE000, 0xF000))
    with pytest.raises(msgspec.DecodeError):
        surrogates.split(rf'{{"a":"{taken}\ud83d"}}'.encode())


@pytest.mark.parametrize("shift", range(14))
@pytest.mark.parametrize("unit", [r"\ud83d\ude00", r"\ud83d", r"\ude00", r"\ud83d\ud83d\ude00\n", "ab", r"a\\\ud83d"])
def test_a_large_body_is_read_as_a_small_one(unit, shift):
    """It is gone through in pieces, which part no pair."""
    text = "x" * shift + unit * (surrogates.LARGE * 2 // len(unit)) + r"\ud83d\ude00"
    whole = surrogates.without_halves(b'{"a":"%b"}' % text.encode())
    assert msgspec.json.decode(whole)["a"] == _HALF.sub("\ufffd", json.loads(f'"{text}"'))


@pytest.mark.parametrize("text", [rb"\ud83d", rb"\\", rb"\"", rb"\ud83d\ude00", rb"\u0061", b"a"])
def test_megabytes_are_read_in_linear_time(text):
    """Whatever the text is made of."""
    body = b'{"a":"\\ud83d' + text * (3_000_000 // len(text)) + b'"}'
    fields = surrogates.split(body)
    assert bytes(fields["a"]) == body[5:-1]
    assert msgspec.json.decode(surrogates.without_halves(body))["a"].startswith("\ufffd")
