"""How long a finished run can be hit, and the `Cache-Status` of a response."""

import json

import pytest

from gateway.domain.bypass import BypassReason
from gateway.sharing.rules.caching import (
    LINKS_LIVE_SECONDS,
    Bypass,
    Hit,
    Join,
    Miss,
    cache_status,
    has_links,
    ttl_of,
    usable_until,
)

NOW = 1_764_000_000.0
DAY = 86_400


@pytest.mark.parametrize(
    ("ttl", "links", "persisted", "seconds"),
    [
        (DAY, False, False, DAY),
        (DAY, True, True, DAY),
        (DAY, True, False, 3300),
        (60, True, False, 60),
        (0, True, False, 0),
        (0, False, True, 0),
    ],
)
def test_result_expires_with_its_ttl_or_its_files(ttl, links, persisted, seconds):
    """As the config says, but no longer than the links to its files work."""
    assert usable_until(NOW, ttl, has_links=links, outputs_persisted=persisted) == NOW + seconds
    assert LINKS_LIVE_SECONDS < 3600


def test_ttl_of_a_rule_overrides_the_cache_ttl():
    """Also when it is 0."""
    assert ttl_of(None, 60) == 60
    assert ttl_of(5, 60) == 5
    assert ttl_of(0, 60) == 0


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (None, False),
        (3.5, False),
        ("", False),
        ("a text about http and https", False),
        ("see https://example.com for more", False),
        ("data:image/png;base64,QQ==", False),
        (["Hello", " world"], False),
        ({"https://replicate.delivery/x": 1}, False),
        ("https://replicate.delivery/pbxt/x/out.png", True),
        (" HTTPS://pbxt.replicate.delivery/out.png\n", True),
        ("http://127.0.0.1:9091/out.png", True),
        (["Hello", "https://example.com/a.png"], True),
        ({"a": [{"b": "https://example.com/a.png"}]}, True),
        ("![a](https://replicate.delivery/x/a.png)", True),
        ('{"url":"https://replicate.delivery/x/a.png"}', True),
    ],
)
def test_file_links_are_found_anywhere_in_the_output(output, expected):
    """Pictures, lists of them, and objects that contain them."""
    assert has_links(json.dumps(output).encode()) is expected


def test_file_links_are_found_with_any_escaping():
    """Go escapes `&`; other encoders escape slashes, or everything."""
    assert has_links(b'"https:\\/\\/replicate.delivery\\/a.png"')
    assert has_links('"{}"'.format("".join(f"\\u{ord(c):04x}" for c in "https://replicate.delivery/a")).encode())
    assert not has_links(b'"\\u0041"')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://example.com for more", False), ("https://example.com/a.png", True), (" HTTP:/x", True),
        ("at replicate.delivery/x", True), (r"r\u0065plicate.delivery/x", True), (r"a \u0026 b \u003c c", False),
    ],
)  # fmt: skip
def test_a_large_output_is_judged_without_being_decoded(text, expected):
    """In doubt it has links."""
    assert has_links(b'["%b","%b"]' % (b"word " * 60_000, text.encode())) is expected


def test_unreadable_output_counts_as_having_links():
    """What cannot be parsed is cached for the shorter time."""
    assert has_links(b'"http://x')
    assert has_links(b'["http"' + b"," + b"[" * 5000 + b"]" * 5000 + b"]")
    assert not has_links(b"[" * 900 + b"1" + b"]" * 900)


@pytest.mark.parametrize(
    ("decision", "text"),
    [
        (Hit(3541), "replicate-gateway; hit; ttl=3541"),
        (Join(), "replicate-gateway; fwd=miss; collapsed"),
        (Miss(stored=True), "replicate-gateway; fwd=miss; stored"),
        (Miss(stored=False), "replicate-gateway; fwd=miss"),
        (Bypass(BypassReason.RULE_NEVER), "replicate-gateway; fwd=bypass; detail=rule-never"),
    ],
)
def test_cache_status_follows_rfc_9211(decision, text):
    """As the documentation shows it."""
    assert cache_status(decision) == text
