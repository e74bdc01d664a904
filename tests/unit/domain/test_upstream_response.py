"""Answers of upstream, and what is passed on of them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.upstream_response import KEPT_HEADERS, Answer, as_json, passable, retry_after_seconds

HTML = {"content-type": "text/html; charset=UTF-8", "retry-after": "7", "ratelimit-remaining": "5"}
JSON = {"content-type": "application/json"}
PROBLEM = {"content-type": "application/problem+json"}


@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (201, True), (204, True), (299, True), (304, False), (404, False)]
)
def test_success_is_below_300(status, ok):
    """A redirect is no success: it is never followed."""
    assert Answer(status, {}, b"").is_ok is ok


def test_only_headers_about_the_response_are_passed_on():
    """Upstream's cookies, server and CDN are hidden from callers."""
    headers = {
        "Content-Type": "application/json", "RateLimit-Remaining": "599", "Set-Cookie": "a=b", "Server": "cloudflare",
        "CF-Ray": "1", "Connection": "close", "Transfer-Encoding": "chunked", "Content-Length": "5", "Retry-After": "1",
        "Content-Encoding": "gzip", "Authorization": "Bearer r8_x", "Location": "https://api.replicate.com/v1/x",
    }  # fmt: skip
    assert passable(headers) == {"content-type": "application/json", "ratelimit-remaining": "599", "retry-after": "1"}


@given(
    st.dictionaries(st.text(max_size=20) | st.sampled_from(sorted(KEPT_HEADERS)).map(str.title), st.text(max_size=5))
)
def test_no_other_header_passes(headers):
    """The list is closed."""
    assert set(passable(headers)) <= KEPT_HEADERS


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 502, 503, 200, 202])
@pytest.mark.parametrize("headers", [JSON, PROBLEM, {"content-type": "Application/JSON; charset=utf-8"}])
def test_api_response_is_unchanged(status, headers):
    """Upstream's own errors reach the caller as they are."""
    answer = Answer(status, headers, b'{"detail":"x"}')
    assert as_json(answer) is answer
    assert not answer.is_from_edge


@pytest.mark.parametrize(
    ("status", "shown"),
    [(500, 500), (502, 502), (503, 503), (504, 504), (520, 502), (522, 502), (599, 502)],
)
@pytest.mark.parametrize("headers", [HTML, {}, {"content-type": "text/plain"}, {"content-type": "TEXT/HTML"}])
def test_cdn_error_page_becomes_a_problem_document(status, shown, headers):
    """A client could neither show nor read Cloudflare's page."""
    answer = Answer(status, headers, b"<html>cloudflare</html>")
    assert answer.is_from_edge
    reported = as_json(answer)
    assert reported.status == shown
    assert reported.headers["content-type"] == "application/problem+json"
    assert reported.headers.get("retry-after") == headers.get("retry-after")
    body = msgspec.json.decode(reported.body)
    assert body["status"] == shown
    assert str(status) in body["detail"]
    assert b"<html>" not in reported.body


@pytest.mark.parametrize("status", [403, 413, 429])
def test_html_refusal_becomes_a_problem_document(status):
    """An upload that is too large for the CDN is a 413 in JSON; it is the caller's mistake, not an outage."""
    answer = Answer(status, HTML, b"<html>413</html>")
    reported = as_json(answer)
    assert (reported.status, reported.headers["content-type"]) == (status, "application/problem+json")
    assert not answer.is_from_edge


@pytest.mark.parametrize(
    ("status", "content_type"), [(200, "text/html"), (200, "text/plain"), (404, "text/plain"), (204, "text/plain")]
)
def test_successful_pages_are_unchanged(status, content_type):
    """A model's readme is text, and stays so."""
    answer = Answer(status, {"content-type": content_type}, b"# Readme")
    assert as_json(answer) is answer


@pytest.mark.parametrize(
    ("headers", "body", "seconds"),
    [
        ({"retry-after": "30"}, b"", 30),
        ({"retry-after": " 5 "}, b"", 5),
        ({"retry-after": "0"}, b'{"retry_after":9}', 0),
        ({}, b'{"detail":"Request was throttled.","status":429,"retry_after":30}', 30),
        ({}, b'{"retry_after":0.5}', 0.5),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, b'{"retry_after":4}', 4),
        ({"retry-after": "-1"}, b"", None),
        ({"retry-after": "²"}, b"", None),
        ({"retry-after": "٣"}, b"", None),
        ({}, b'{"retry_after":-5}', None),
        ({}, b'{"retry_after":"5"}', None),
        ({}, b'{"retry_after":null}', None),
        ({}, b'{"retry_after":1e999}', None),
        ({}, b'{"detail":"x"}', None),
        ({}, b"[" * 100_000, None),
        ({}, b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        ({}, b"<html>", None),
        ({}, b"", None),
    ],
)
def test_retry_after_is_read_from_header_or_body(headers, body, seconds):
    """Nonsense counts as none."""
    assert retry_after_seconds(Answer(429, headers, body)) == seconds


@given(st.text(max_size=20), st.binary(max_size=60))
def test_any_response_has_a_retry_after_or_none(header, body):
    """Whatever upstream's edge sends, the gateway goes on."""
    seconds = retry_after_seconds(Answer(429, {"retry-after": header}, body))
    assert seconds is None or seconds >= 0


def test_callers_do_not_see_the_accounts_rate_limit():
    """It is shared by all teams, and tells each what the others do."""
    answer = Answer(
        200, {"content-type": "a/b", "ratelimit-remaining": "5", "ratelimit-limit": "9", "retry-after": "1"}, b""
    )
    assert answer.shown_headers == {"content-type": "a/b", "retry-after": "1"}
