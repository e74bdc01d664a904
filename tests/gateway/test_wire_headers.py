"""The headers of every kind of response, as they are on the wire.

Some responses are written by `gateway/http/response.py` and the others by aiohttp. Nobody can tell which.
"""

import re
from typing import Any

import pytest

from tests.support.http_calls import PAGE, STRANGER, Reply, ask, exchange, parse, raw_request
from tests.support.samples import UNKNOWN_ID, UNKNOWN_TICKET, create, finished
from tests.support.stack import OpenGateway, Stack

ALWAYS = {
    "date": r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT",
    "server": "replicate-gateway",
    "x-request-id": r"[0-9a-f]{24}",
    "x-content-type-options": "nosniff",
    "server-timing": r"gateway;dur=\d+\.\d.*",
    "cache-control": "no-store",
    "vary": "Origin",
    "connection": "close",
}
JSON = {"content-type": "application/json", "content-length": r"\d+"}
PROBLEM = {"content-type": r"application/problem\+json", "content-length": r"\d+"}
FOR_PAGE = {
    "access-control-allow-origin": re.escape(PAGE),
    "access-control-allow-credentials": "true",
    "access-control-expose-headers": "Location, .*",
    "timing-allow-origin": re.escape(PAGE),
}
RATES = {
    "ratelimit-policy": '"team-requests";q=600;w=60',
    "ratelimit": r'"team-requests";r=\d+;t=\d+',
    "ratelimit-remaining": r"\d+",
    "ratelimit-reset": r"\d+",
}
CREATED = JSON | {
    "location": r"http://gateway\.test/v1/predictions/[a-z0-9]{26}",
    "cache-status": "replicate-gateway; .*",
}
METADATA = JSON | {
    "cache-status": "replicate-gateway; (hit; ttl=.*|fwd=miss; stored)",
    "cache-control": "private, no-cache",
    "etag": 'W/"[0-9a-f]{24}"',
    "vary": "Accept-Encoding, Authorization, Origin",
}
STREAM = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store, no-transform",
    "referrer-policy": "no-referrer",
    "x-accel-buffering": "no",
    "transfer-encoding": "chunked",
}
RATED = {"requests_per_minute": 600, "burst": 600}


async def wire(stack: Stack, *args: Any, **options: Any) -> Reply:
    """Send a request that closes its connection, which aiohttp answers."""
    return parse(await exchange(stack, raw_request(*args, key=stack.keys["alpha"], **options)), whole=False)


def assert_headers(reply: Reply, expected: dict[str, str]) -> None:
    """Compare names and values, each name once."""
    names = [name.lower() for name in reply.headers]
    assert sorted(names) == sorted(expected)
    for name, pattern in expected.items():
        assert re.fullmatch(pattern, reply.headers[name]), (name, reply.headers[name])


async def test_responses_of_every_kind_have_their_headers(gateway: Stack):
    """A status, its own headers and the common ones; each header once."""
    prediction = (await create(gateway, model="acme/storyteller", seed=1, prompt="a")).json
    await finished(gateway, prediction["id"])
    poll, model = f"/v1/predictions/{prediction['id']}", "/v1/models/acme/storyteller"
    await ask(gateway, "GET", model)
    body = b'{"version": "%b", "input": {"seed": 1, "prompt": "a"}}' % prediction["version"].encode()
    for origin, common in ((None, ALWAYS), (PAGE, ALWAYS | FOR_PAGE), (STRANGER, ALWAYS)):
        for method, path, given, status, own in (
            ("GET", poll, None, 200, JSON),
            ("HEAD", poll, None, 200, JSON),
            ("POST", "/v1/predictions", body, 201, CREATED),
            ("GET", model, None, 200, METADATA | {"age": r"\d+"}),
            ("GET", f"/v1/predictions/{UNKNOWN_ID}", None, 404, PROBLEM),
            ("GET", "/v1/nothing", None, 404, PROBLEM),
            ("PUT", poll, None, 405, PROBLEM | {"allow": "GET, HEAD, OPTIONS"}),
            ("OPTIONS", poll, None, 204, {"allow": "GET, HEAD, POST, .*"}),
            ("GET", f"/v1/streams/{UNKNOWN_TICKET}", None, 404, PROBLEM),
            ("GET", "/healthz", None, 200, JSON),
        ):
            reply = await wire(gateway, method, path, body=given, origin=origin)
            assert reply.status == status, path
            assert_headers(reply, common | own)


async def test_stream_and_preflight_have_their_headers(gateway: Stack):
    """A stream has no length; a preflight depends on what it asks for."""
    prediction = (await create(gateway, model="acme/storyteller", prompt="a")).json
    path = prediction["urls"]["stream"].removeprefix(gateway.origin)
    reply = await wire(gateway, "GET", path)
    assert_headers(reply, ALWAYS | FOR_PAGE | STREAM)
    asking = [("Access-Control-Request-Method", "GET")]
    reply = await wire(gateway, "OPTIONS", "/v1/predictions", asking)
    varying = {"vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}
    allowed = {f"access-control-{name}": ".+" for name in ("allow-methods", "allow-headers", "max-age")}
    assert_headers(reply, ALWAYS | FOR_PAGE | varying | allowed)


@pytest.mark.parametrize("origin", [None, PAGE, STRANGER])
async def test_both_writers_write_the_same(open_gateway: OpenGateway, origin: str | None):
    """A connection that stays open gets the headers of one that closes, with and without rates and origins."""
    async with open_gateway(teams={"alpha": RATED}) as stack:
        prediction = (await create(stack, model="acme/storyteller", seed=1, prompt="a")).json
        await finished(stack, prediction["id"])
        model = "/v1/models/acme/storyteller"
        await ask(stack, "GET", model)
        sent = [("Origin", origin)] if origin else []
        for path in (f"/v1/predictions/{prediction['id']}", model, "/v1/models"):
            for version in ("1.1", "1.0"):
                closing = await wire(stack, "GET", path, origin=origin, version=version, host=stack.origin[7:])
                kept = await ask(stack, "GET", path, headers=sent)
                assert settled(kept) == settled(closing)
                assert {name.lower() for name in kept.headers} >= RATES.keys()
                assert re.fullmatch(ALWAYS["date"], kept.headers["Date"])
                assert re.fullmatch(ALWAYS["server-timing"], kept.headers["Server-Timing"])


def settled(reply: Reply) -> object:
    """Return the response without what differs between two requests, or two connections."""
    status, headers, body = reply.settled
    changing = ("connection", "ratelimit", "ratelimit-remaining", "ratelimit-reset", "age", "cache-status")
    return status, [(name, value) for name, value in headers if name not in changing], body
