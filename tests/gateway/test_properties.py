"""Properties: whatever comes in, no crash, no traceback, and upstream sees nothing that is not in the route table.

Repeatable by default; `GATEWAY_PROPERTY_EXAMPLES=2000` looks further, and elsewhere each time.
"""

import base64
import json
import os
import re
from typing import Any
from urllib.parse import quote, unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from yarl import URL

from gateway.http.routes import PREFIXES, PUBLIC
from tests.support.http_calls import Reply, ask, exchange, parse, raw_request, send_raw
from tests.support.samples import FORM, HEX, content, fill, form
from tests.support.secret_scanner import LogScanner
from tests.support.stack import Stack
from tests.support.upstream import CREATES

_WANTED = os.environ.get("GATEWAY_PROPERTY_EXAMPLES")
pytestmark = pytest.mark.timeout(20 if _WANTED is None else 3600)
many = settings(
    max_examples=int(_WANTED or 60),
    derandomize=_WANTED is None,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# What upstream may be asked, from the route table: method and path below /v1.
_ALLOWED = {
    (method, len(path.split("/")))
    for method, path in [(route.method, fill(route.path)) for route in PUBLIC if "streams" not in route.name]
}
_WORDS = sorted(
    {word for route in PUBLIC for word in fill(route.path).split("/") if word}
    | {"", ".", "..", "%2e%2e", "%2f", "%00", ";", "v1", "V1", "*", "~", "a" * 26, HEX, "gateway", "tokens", "healthz"}
)
_METHODS = ["GET", "POST", "PATCH", "DELETE", "QUERY", "PUT", "HEAD", "OPTIONS", "TRACE", "PROPFIND"]
_NAMES = [
    "Prefer",
    "Cancel-After",
    "Content-Type",
    "Content-Encoding",
    "Accept",
    "Accept-Encoding",
    "If-None-Match",
    "Host",
    "Origin",
    "Authorization",
    "Gateway-User",
    "Gateway-Tags",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Request-Id",
    "Expect",
    "Range",
    "Last-Event-ID",
    "Access-Control-Request-Method",
    "Cookie",
    "Idempotency-Key",
    "Upgrade",
]

paths = st.lists(
    st.sampled_from(_WORDS) | st.text("abc%2ef./\\;:@&=+$,-_~!*'()|^`{}<>\"", max_size=12), max_size=6
).map(lambda parts: "/" + "/".join(parts))
queries = st.text("abcdef0123456789%=&+?#./:;@[]\"'<>|\\^`{}_-~", max_size=40)
values = st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.sampled_from("\t\x80\xe9\xff"), max_size=60)
headers = st.lists(st.tuples(st.sampled_from(_NAMES), values), max_size=4)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=30)
)
jsons = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    ["version", "input", "webhook", "webhook_events_filter", "stream", "destination", "model", "x", ""]
)


def assert_sound(stack: Stack, log_scanner: LogScanner, reply: Reply) -> None:
    assert reply.status != 500, reply.text
    assert reply.status < 600
    assert "Traceback" not in reply.text
    assert not log_scanner.errors
    for seen in stack.upstream.requests:
        if seen.origin != "api":
            continue
        assert seen.operation != "unknown", f"{seen.method} {seen.path}"
        assert seen.path.startswith("/v1/")
        assert ".." not in unquote(seen.path)
        assert (seen.method, len(seen.path.removeprefix("/v1").split("/"))) in _ALLOWED
    stack.upstream.requests.clear()


def last_answer(received: bytes) -> Reply:
    """Take the last answer of a connection: one may be `100 Continue`."""
    starts = [match.start() for match in re.finditer(rb"HTTP/\d\.\d \d{3}", received)]
    assert starts, received[:200]
    return parse(received[starts[-1] :], whole=False)


@many
@given(
    method=st.sampled_from(_METHODS),
    prefix=st.sampled_from(PREFIXES),
    path=paths,
    query=queries,
    more=headers,
    body=st.none() | st.binary(max_size=60) | jsons.map(lambda value: json.dumps(value).encode()),
)
async def test_random_requests_never_crash_or_leave_the_route_table(
    gateway, log_scanner, method, prefix, path, query, more, body
):
    """A fuzzer with a valid key finds neither a 500 nor a way to another upstream path."""
    target = prefix + path + ("?" + query if query else "")
    target = target.replace(" ", "%20").replace("#", "%23")
    given_headers = [(name, value.encode("latin-1")) for name, value in more]
    names = {name for name, _ in more}
    request = raw_request(
        method,
        target,
        given_headers,
        body,
        host=None if "Host" in names else "gw.test",
        key=None if "Authorization" in names else gateway.keys["alpha"],
        origin=None,
    )
    received = await exchange(gateway, request, patience=1.0)
    if received:
        assert_sound(gateway, log_scanner, last_answer(received))


@many
@given(
    route=st.sampled_from([route for route in PUBLIC if "{" in route.path]),
    parts=st.fixed_dictionaries(
        {name: st.sampled_from(_WORDS) | st.text(max_size=20) for name in ("owner", "name", "version", "id", "slug")}
    ),
    quoted=st.booleans(),
)
async def test_random_path_segments_stay_in_their_place(gateway, log_scanner, route, parts, quoted):
    """Owner, name, version and id are names, whatever they contain: slashes, dots, line breaks, encoded or not."""
    spelled = {name: quote(part, safe="") if quoted else part for name, part in parts.items()}
    target = "/v1" + fill(route.path, **spelled)
    target = quote(target, safe="/%?#[]@!$&'()*+,;=:~") if not quoted else target
    body = b'{"input":{}}' if route.method in ("POST", "PATCH") else None
    sent = [("Content-Type", "application/json")] if body else []
    reply = await send_raw(
        gateway, raw_request(route.method, target.replace("#", "%23"), sent, body, key=gateway.keys["alpha"])
    )
    assert_sound(gateway, log_scanner, reply)


@many
@given(
    body=st.dictionaries(fields, jsons, max_size=5) | jsons, target=st.sampled_from(["version", "model", "deployment"])
)
async def test_random_body_is_refused_or_sent_once_in_the_documented_form(gateway, log_scanner, body, target):
    """A create costs money once: upstream gets the documented fields and the caller's input, or nothing."""
    if isinstance(body, dict) and isinstance(body.get("version"), str) and len(body["version"]) % 2:
        body["version"] = "acme/official-storyteller"
    path = {"version": "/v1/predictions", "model": "/v1/models/acme/official-storyteller/predictions",
            "deployment": "/v1/deployments/acme/story-service/predictions"}[target]  # fmt: skip
    await judge_create(gateway, log_scanner, path, json.dumps(body).encode(), body)


@many
@given(
    given_input=st.dictionaries(st.text(max_size=10), jsons, max_size=5),
    stream=st.none() | st.booleans(),
    hook=st.none() | st.just("https://hooks.example.com/x"),
)
async def test_random_input_is_sent_unchanged(gateway, log_scanner, given_input, stream, hook):
    """Every JSON value that a model could take arrives as the same value."""
    body: dict[str, Any] = {"version": "acme/official-storyteller", "input": given_input}
    body |= ({"stream": stream} if stream is not None else {}) | ({"webhook": hook} if hook else {})
    await judge_create(gateway, log_scanner, "/v1/predictions", json.dumps(body).encode(), body, must_go=True)


@many
@given(body=st.binary(max_size=200) | st.text('{}[]",:versioninput\\u0041 \n0.eE-', max_size=60).map(str.encode))
async def test_random_bytes_are_refused_or_sent_once(gateway, log_scanner, body):
    """Bytes that are almost JSON make no partial create."""
    await judge_create(gateway, log_scanner, "/v1/predictions", body, None)


async def judge_create(
    stack: Stack, log_scanner: LogScanner, path: str, data: bytes, body: Any, *, must_go: bool = False
) -> None:
    stack.upstream.requests.clear()
    reply = await ask(stack, "POST", path, data=data, headers={"Content-Type": "application/json"})
    sent = stack.upstream.requests.find(CREATES)
    if not sent:
        assert not must_go, reply.text
        assert 400 <= reply.status < 500
        assert reply.headers["Content-Type"].startswith("application/problem+json")
    else:
        (only,) = sent
        assert set(only.json) <= {"version", "input", "stream"}
        assert isinstance(only.json["input"], dict)
        assert "hooks.example.com" not in only.body or "hooks.example.com" in json.dumps(body["input"])
        if body is not None:
            assert only.json["input"] == body["input"]
    assert_sound(stack, log_scanner, reply)


@many
@given(
    data=st.binary(max_size=300)
    | st.lists(
        st.sampled_from(
            [
                b"--frontier",
                b"--frontier--",
                b"\r\n",
                b"\r\n\r\n",
                content(),
                content()[:30],
                b"Content-Type: ",
                b'Content-Disposition: form-data; name="content"; filename="x"',
                b"--",
                b"x" * 100,
                b"\x00\xff",
            ]
        ),
        max_size=8,
    ).map(b"".join)
    | st.binary(max_size=20).map(lambda noise: form(content(data=noise))),
    boundary=st.sampled_from(["frontier", '"frontier"', "", "--", "x" * 69, "front ier", 'a"b']),
)
async def test_random_form_is_a_file_or_a_clear_refusal(gateway, log_scanner, data, boundary):
    """Noise between boundaries is not taken for a file."""
    sent = {"Content-Type": FORM.replace("frontier", boundary)}
    reply = await ask(gateway, "POST", "/v1/files", data=data, headers=sent)
    assert reply.status in (201, 400, 413, 415, 422, 429), reply.text
    assert_sound(gateway, log_scanner, reply)


@many
@given(query=queries)
async def test_random_query_is_sent_as_spelled(gateway, log_scanner, query):
    """Encoded or not, upstream gets the query that the caller sent."""
    query = query.replace("#", "")
    reply = await ask(gateway, "GET", "/v1/collections" + ("?" + query if query else ""))
    if gateway.upstream.requests.count("collections.list"):
        (seen,) = gateway.upstream.requests
        assert seen.query == parse_query(query)
    assert_sound(gateway, log_scanner, reply)


def parse_query(query: str) -> str:
    return URL.build(path="/", query_string=query, encoded=True).query_string


@many
@given(
    cursor=st.text(max_size=60)
    | st.binary(max_size=40).map(lambda b: base64.b64encode(b).decode())
    | st.tuples(st.floats(), st.text("abc019", max_size=26)).map(
        lambda pair: base64.b64encode(f"p={pair[0]!r}%7C{pair[1]}".encode()).decode()
    ),
    path=st.sampled_from(["predictions", "trainings", "files"]),
)
async def test_random_cursor_is_a_page_or_a_clear_refusal(gateway, log_scanner, cursor, path):
    """Infinity, NaN and noise are refused or give an empty page; never an error of the store."""
    reply = await ask(gateway, "GET", f"/v1/{path}?cursor={quote(cursor, safe='')}")
    assert reply.status in (200, 404), reply.text
    if reply.status == 200:
        for link in (reply.json["next"], reply.json["previous"]):
            assert link is None or (await ask(gateway, "GET", link)).status == 200
    assert_sound(gateway, log_scanner, reply)


@many
@given(
    text=st.text(max_size=40)
    | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ][0-9:.]{0,20})?([zZ]|[+-][0-9:]{0,6})?"),
    name=st.sampled_from(["created_after", "created_before"]),
)
async def test_random_time_is_a_filter_or_a_clear_refusal(gateway, log_scanner, text, name):
    """Times of year 0, of hour 25, of the year 9999 and beyond."""
    reply = await ask(gateway, "GET", f"/v1/predictions?{name}={quote(text, safe='')}")
    assert reply.status in (200, 400), reply.text
    assert_sound(gateway, log_scanner, reply)


@many
@given(data=st.data())
async def test_damaged_request_affects_no_other(gateway, log_scanner, data):
    """Bytes changed, repeated or lost in transit: a response or a closed connection, and the next request is served."""
    request = bytearray(
        raw_request("POST", "/v1/predictions", [("Content-Type", "application/json"), ("Prefer", "wait=1")],
              b'{"version":"acme/official-storyteller","input":{"prompt":"x"}}', key=gateway.keys["alpha"])
    )  # fmt: skip
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(request) - 1))
        request[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    received = await exchange(gateway, bytes(request), patience=0.15)
    if received:
        assert_sound(gateway, log_scanner, last_answer(received))
    assert (await send_raw(gateway, raw_request("GET", "/healthz"))).status == 200
    assert not log_scanner.errors
