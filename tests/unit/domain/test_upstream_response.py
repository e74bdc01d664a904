"""Answers of upstream, and what is passed on of them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.upstream_response import PASSED_HEADERS, Answer, as_json, passable, retry_after_seconds

HTML = {"content-type": "text/html; charset=UTF-8", "retry-after": "7", "ratelimit-remaining": "5"}
JSON = {"content-type": "application/json"}
PROBLEM = {"content-type": "application/problem+json"}


@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (201, True), (204, True), (299, True), (304, False), (404, False)]
)
def test_success_is_below_300(status, ok):
    """A redirect is no success: it is never followed."""
    assert Answer(status, {}, b"").is_ok is ok


def test_only_headers_about_the_answer_are_passed_on():
    """Upstream's cookies, server and CDN stay out of the callers' sight."""
    headers = {
        "Content-Type": "application/json", "RateLimit-Remaining": "599", "Set-Cookie": "a=b", "Server": "cloudflare",
        "CF-Ray": "1", "Connection": "close", "Transfer-Encoding": "chunked", "Content-Length": "5", "Retry-After": "1",
        "Content-Encoding": "gzip", "Authorization": "Bearer r8_x", "Location": "https://api.replicate.com/v1/x",
    }  # fmt: skip
    assert passable(headers) == {"content-type": "application/json", "ratelimit-remaining": "599", "retry-after": "1"}


@given(
    st.dictionaries(st.text(max_size=20) | st.sampled_from(sorted(PASSED_HEADERS)).map(str.title), st.text(max_size=5))
)
def test_nothing_else_ever_passes(headers):
    """The list is closed."""
    assert set(passable(headers)) <= PASSED_HEADERS


@pytest.mark.parametrize("status", [400, 401, 404, 422, 429, 500, 502, 503, 200, 202])
@pytest.mark.parametrize("headers", [JSON, PROBLEM, {"content-type": "Application/JSON; charset=utf-8"}])
def test_an_answer_of_the_api_is_left_alone(status, headers):
    """Upstream's own errors reach the caller as they are."""
    answer = Answer(status, headers, b'{"detail":"x"}')
    assert as_json(answer) is answer
    assert not answer.is_from_edge


@pytest.mark.parametrize(
    ("status", "shown"),
    [(500, 500), (502, 502), (503, 503), (504, 504), (520, 502), (522, 502), (599, 502)],
)
@pytest.mark.parametrize("headers", [HTML, {}, {"content-type": "text/plain"}, {"content-type": "TEXT/HTML"}])
def test_an_edge_page_becomes_a_problem(status, shown, headers):
    """A page of Cloudflare's is nothing that a client could show or read."""
    answer = Answer(status, headers, b"<html>cloudflare</html>")
    assert answer.is_from_edge
    told = as_json(answer)
    assert told.status == shown
    assert told.headers["content-type"] == "application/problem+json"
    assert told.headers.get("retry-after") == headers.get("retry-after")
    body = msgspec.json.decode(told.body)
    assert body["status"] == shown
    assert str(status) in body["detail"]
    assert b"<html>" not in told.body


@pytest.mark.parametrize("status", [403, 413, 429])
def test_a_refusal_told_in_html_becomes_a_problem_too(status):
    """An upload that is too large for the CDN is told as 413, in JSON; it is the caller's matter, not an outage."""
    answer = Answer(status, HTML, b"<html>413</html>")
    told = as_json(answer)
    assert (told.status, told.headers["content-type"]) == (status, "application/problem+json")
    assert not answer.is_from_edge


@pytest.mark.parametrize(
    ("status", "content_type"), [(200, "text/html"), (200, "text/plain"), (404, "text/plain"), (204, "text/plain")]
)
def test_pages_that_are_no_errors_are_left_alone(status, content_type):
    """A model's readme is text, and stays it."""
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
def test_upstream_says_when_to_come_again(headers, body, seconds):
    """From the header, else from the body; nonsense says nothing."""
    assert retry_after_seconds(Answer(429, headers, body)) == seconds


@given(st.text(max_size=20), st.binary(max_size=60))
def test_any_answer_says_something_or_nothing(header, body):
    """Whatever upstream's edge sends, the gateway goes on."""
    seconds = retry_after_seconds(Answer(429, {"retry-after": header}, body))
    assert seconds is None or seconds >= 0
