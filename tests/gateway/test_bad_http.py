"""Malformed HTTP: heads, hosts, incomplete bodies, pipelined requests."""

import pytest

from tests.support.bad_input import JSON, files_of
from tests.support.http_calls import assert_problem, exchange, hang_up_after, parse, raw_request, send_raw
from tests.support.samples import FORM, content
from tests.support.stack import Stack

HEADS: list[tuple[str, bytes, int]] = [
    ("all byte values", bytes(range(256)), 400),
    ("a TLS handshake", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), 400),
    ("an HTTP/0.9 request", b"GET /v1/account\r\n\r\n", 401),
    ("an unknown method", b"FROB /v1/account HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a path that is not ASCII", "GET /v1/models/acme/caf\u00e9 HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 400),
    ("a path of invalid UTF-8", b"GET /v1/models/acme/\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a query of invalid UTF-8", b"GET /v1/search?query=\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("HTTP version 9.9", b"GET /v1/account HTTP/9.9\r\n\r\n", 400),
    ("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    ("a header without a colon", b"GET /v1/account HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", 400),
    ("a space in a header name", b"GET /v1/account HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n", 400),
    ("a folded header", b"GET /v1/account HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n", 400),
    ("a null in a header", b"GET /v1/account HTTP/1.1\r\nHost: a\r\nX: y\x00z\r\n\r\n", 400),
    ("two lengths", b"POST /v1/predictions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    ("a negative length", b"POST /v1/predictions HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
    ("a length and chunked coding",
     b"POST /v1/predictions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ("an unknown transfer coding",
     b"POST /v1/predictions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
    ("two hosts", b"GET /v1/predictions HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("a space in the path", b"GET /v1/ account HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("a too long line", b"GET /v1/" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ("a too long header", b"GET /v1/account HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
    ("too many headers", b"GET /v1/account HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 5_000 + b"\r\n", 400),
    ("an authority with an open bracket", b"GET http://[::1/v1/account HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("an unsupported content coding",
     b"POST /v1/predictions HTTP/1.1\r\nHost: a\r\nContent-Encoding: br\r\nContent-Length: 2\r\n\r\n{}", 415),
    ("an invalid port", b"GET http://a:b/v1/account HTTP/1.1\r\nHost: a\r\n\r\n", 400),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status"), [row[1:] for row in HEADS], ids=[row[0] for row in HEADS])
async def test_malformed_request_bytes_get_a_problem_document(small: Stack, data: bytes, status: int):
    """Whatever a port scanner sends, the response is JSON without a traceback, and the gateway goes on."""
    reply = await send_raw(small, data)
    assert_problem(reply, status, origin=None)
    assert not len(small.upstream.requests)
    again = await send_raw(small, raw_request("GET", "/healthz"))
    assert again.status == 200


@pytest.mark.parametrize(
    "host", ["", "a b", "a/b", "a@b", "a:b", "a:123456", "[::1", "a\\b", "exa\u00e4mple", "a?b", ".a"]
)
async def test_bad_host_header_is_refused_where_links_would_contain_it(small: Stack, host: str):
    """A link that leads nowhere, or to an attacker's host, is worse than an error."""
    reply = await send_raw(small, raw_request("GET", "/v1/predictions", host=host, key=small.keys["alpha"]))
    assert_problem(reply, 400, origin=None)
    assert not len(small.upstream.requests)


async def test_missing_host_header_is_refused(small: Stack):
    """HTTP/1.0 needs no Host, but then the gateway has no address for its links."""
    reply = await send_raw(
        small, raw_request("GET", "/v1/predictions", host=None, version="1.0", key=small.keys["alpha"])
    )
    assert "Host" in assert_problem(reply, 400)["detail"]


async def test_incomplete_body_leaves_no_trace(small: Stack):
    """A caller who disconnects in the middle of a body leaves no record and no traceback."""
    key = small.keys["alpha"]
    cut = raw_request("POST", "/v1/predictions", [JSON, ("Content-Length", "1000")], key=key) + b'{"version"'
    form_cut = (
        raw_request("POST", "/v1/files", [("Content-Type", FORM), ("Content-Length", "9000")], key=key) + content()
    )
    chunk_cut = raw_request("POST", "/v1/predictions", [JSON, ("Transfer-Encoding", "chunked")], key=key) + b"5\r\nab"
    bad_chunk = (
        raw_request("POST", "/v1/predictions", [JSON, ("Transfer-Encoding", "chunked")], key=key) + b"zz\r\nab\r\n"
    )
    for data in (cut, form_cut, chunk_cut, bad_chunk):
        await hang_up_after(small, data)
    assert (await send_raw(small, raw_request("GET", "/v1/account", key=key))).status == 200
    assert not small.upstream.predictions
    assert not files_of(small)


async def test_pipelined_requests_are_answered_in_order(small: Stack):
    """Bad requests on a connection do not affect the good ones after them."""
    key = small.keys["alpha"]
    requests = [
        raw_request("GET", "/v1/account", key=key),
        raw_request("GET", "/v1/nothing", key=key),
        raw_request("POST", "/v1/predictions", [JSON], b"{", key=key),
        raw_request("GET", "/v1/account"),
        raw_request("GET", "/v1/account", key=key),
    ]
    whole = b"".join(request.replace(b"Connection: close\r\n", b"") for request in requests[:-1]) + requests[-1]
    received = await exchange(small, whole)
    assert [int(part[:3]) for part in received.split(b"HTTP/1.1 ")[1:]] == [200, 404, 400, 401, 200]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/deployments"])
async def test_relayed_write_with_invalid_json_is_refused(small: Stack, path: str):
    """A body that cannot be parsed is not sent on with the account's rights."""
    for data in (b"", b"{", b"[]", b"null", b'{"owner":\xff}'):
        reply = await send_raw(small, raw_request("POST", path, [JSON], data, key=small.keys["alpha"]))
        assert_problem(reply, 400)
    assert not len(small.upstream.requests)


def test_test_parser_rejects_what_is_no_response():
    """The parser that these tests use fails on what is not a complete HTTP response."""
    with pytest.raises(AssertionError):
        parse(b"garbage")
