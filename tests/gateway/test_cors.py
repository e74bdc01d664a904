"""CORS: pages that are listed may call and read, errors and streams too; others may not.

See docs/architecture.md, Access; docs/replicate-api.md, Browsers.
"""

from collections.abc import AsyncIterator

import pytest

from gateway.http.route import Route
from gateway.http.routes import OWN, PREFIXES, PUBLIC
from gateway.simulator import Fault
from tests.support.http_calls import PAGE, STRANGER, Reply, ask, raw_request, send_raw
from tests.support.samples import create, fill
from tests.support.stack import OpenGateway, Stack

CLIENTS_SEND = (
    "authorization", "content-type", "prefer", "cancel-after", "user-agent", "x-stainless-arch", "x-stainless-lang",
    "x-stainless-os", "x-stainless-package-version", "x-stainless-retry-count", "x-stainless-runtime",
    "x-stainless-runtime-version", "x-stainless-timeout", "idempotency-key", "gateway-cache",
    "last-event-id", "cache-control", "x-request-id",
)  # fmt: skip
PAGES_READ = ("location", "preference-applied", "retry-after", "ratelimit-remaining", "ratelimit-reset", "cache-status",
              "server-timing", "x-request-id", "etag", "age")  # fmt: skip


async def preflight(stack: Stack, method: str, path: str, origin: str = PAGE) -> Reply:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": ",".join(CLIENTS_SEND),
    }
    return await ask(stack, "OPTIONS", path, key=None, headers=headers)


def words(reply: Reply, name: str) -> set[str]:
    return {word.strip().lower() for word in reply.headers[name].split(",")}


@pytest.mark.parametrize("route", [*PUBLIC, *OWN], ids=lambda route: f"{route.method} {route.name}")
async def test_preflight_needs_no_key(gateway: Stack, route: Route):
    """A browser sends the preflight before the key; without an answer no page works."""
    for prefix in PREFIXES if route in PUBLIC else ("",):
        reply = await preflight(gateway, route.method, prefix + fill(route.path))
        assert reply.status == 204
        assert not reply.body
        # What a ticket opens, any page may read.
        assert reply.headers["Access-Control-Allow-Origin"] == ("*" if route.name == "outputs.read" else PAGE)
        assert route.method in reply.headers["Access-Control-Allow-Methods"]
        assert words(reply, "Access-Control-Allow-Headers") >= set(CLIENTS_SEND)
        assert int(reply.headers["Access-Control-Max-Age"]) >= 600
        assert {"origin", "access-control-request-method", "access-control-request-headers"} <= words(reply, "Vary")
    assert not len(gateway.upstream.requests)


@pytest.mark.parametrize(
    ("method", "path", "asked"),
    [
        # npm `replicate` sets User-Agent; Chromium leaves it out of its question, Firefox asks for it like for others.
        ("POST", "/v1/predictions", "authorization,content-type,prefer,user-agent"),
        ("GET", "/v1/predictions/" + "z" * 26, "authorization,content-type,user-agent"),
        ("QUERY", "/v1/models", "authorization,content-type,user-agent"),
        # EventSource asks nothing. A reader made of fetch, which sets what EventSource sends, does.
        ("GET", "/v1/streams/" + "a" * 52, "cache-control,last-event-id"),
        ("GET", "/v1/files/rgws-" + "a" * 52, "cache-control,last-event-id,user-agent"),
    ],
)
async def test_preflight_as_firefox_sends_it_is_granted(gateway: Stack, method: str, path: str, asked: str):
    """Lower-case names in alphabetical order, User-Agent among them: each header is allowed by name."""
    headers = {
        "Origin": PAGE,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": asked,
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "cross-site",
    }
    reply = await ask(gateway, "OPTIONS", path, key=None, headers=headers)
    assert reply.status == 204
    assert method in words_of(reply.headers["Access-Control-Allow-Methods"])
    assert {each.upper() for each in asked.split(",")} <= words_of(reply.headers["Access-Control-Allow-Headers"])
    assert "*" not in reply.headers["Access-Control-Allow-Headers"], "a star covers no Authorization"
    assert reply.headers["Access-Control-Allow-Origin"] == PAGE
    assert reply.headers["Access-Control-Allow-Credentials"] == "true"


def words_of(header: str) -> set[str]:
    return {word.strip().upper() for word in header.split(",")}


@pytest.mark.parametrize("origin", [STRANGER, "null", PAGE + ".evil.net", "", "http://app.example.com", "*",
                                    PAGE + "\u0430", "https://APP.example.com.evil.net"])  # fmt: skip
async def test_preflight_of_an_unlisted_origin_gets_no_cors_headers(gateway: Stack, origin: str):
    """An unlisted page learns nothing, and the response varies by origin."""
    for reply in (
        await send_raw(gateway, raw_request("OPTIONS", "/v1/predictions", [("Access-Control-Request-Method", "POST")],
                                      origin=origin)),
        await send_raw(gateway, raw_request("GET", "/v1/account", key=gateway.keys["alpha"], origin=origin)),
        await send_raw(gateway, raw_request("GET", "/v1/account", origin=origin)),
    ):  # fmt: skip
        granted = [name for name in reply.headers if name.lower().startswith("access-control-allow-o")]
        assert not granted
        assert "Access-Control-Allow-Credentials" not in reply.headers
        assert "Origin" in reply.headers["Vary"]


async def test_origin_is_matched_without_regard_to_case(gateway: Stack):
    """Hosts have no case; the origin is echoed as it came."""
    reply = await ask(gateway, "GET", "/v1/account", headers={"Origin": "https://APP.example.com"})
    assert reply.headers["Access-Control-Allow-Origin"] == "https://APP.example.com"


def assert_readable(reply: Reply) -> None:
    assert reply.headers["Access-Control-Allow-Origin"] == PAGE
    assert reply.headers["Access-Control-Allow-Credentials"] == "true"
    assert words(reply, "Access-Control-Expose-Headers") >= set(PAGES_READ)
    assert "Origin" in reply.headers["Vary"]
    for name in ("Access-Control-Allow-Origin", "Vary", "X-Request-Id", "Server-Timing"):
        assert len(reply.headers.getall(name)) == 1


@pytest.fixture
async def hasty(open_gateway: OpenGateway) -> AsyncIterator[Stack]:
    """A gateway that gives up soon: an uncertain create, and a create over a rate at once."""
    teams = {"alpha": {"max_wait_seconds": 0}}
    async with open_gateway(upstream={"adopt_wait_seconds": 0.2}, teams=teams) as stack:
        yield stack


async def test_responses_and_errors_are_readable_by_a_listed_page(hasty: Stack):
    """A page can show what went wrong instead of `TypeError: Failed to fetch`."""
    page = {"Origin": PAGE}
    hasty.upstream.faults.set(Fault("html_error", operation="account.get"))
    replies = {
        200: await ask(hasty, "GET", "/v1/models", headers=page),
        201: await create(hasty, headers=page),
        401: await ask(hasty, "GET", "/v1/models", key=None, headers=page),
        404: await ask(hasty, "GET", "/v1/nothing", headers=page),
        405: await ask(hasty, "DELETE", "/v1/predictions", headers=page),
        413: await ask(hasty, "POST", "/v1/predictions", headers=page | {"Content-Type": "application/json"},
                       data=b" " * (17 * 1024 * 1024)),
        415: await ask(hasty, "POST", "/v1/files", headers=page | {"Content-Type": "text/plain"}, data=b"x"),
        422: await ask(hasty, "POST", "/v1/predictions", headers=page, json={}),
        400: await ask(hasty, "GET", "/v1/predictions?source=x", headers=page),
    }  # fmt: skip
    for status, reply in replies.items():
        assert reply.status == status
        assert_readable(reply)
    hasty.upstream.faults.set(Fault("html_error", operation="*predictions.create"))
    assert_readable(lost := await create(hasty, headers=page))
    assert lost.status == 504
    hasty.upstream.faults.set(Fault("throttle", operation="*predictions.create", retry_after=7))
    assert_readable(throttled := await create(hasty, headers=page))
    assert (throttled.status, throttled.headers["Retry-After"]) == (429, "7")


async def test_stream_is_readable_by_the_pages_of_its_team(gateway: Stack):
    """EventSource sends no key; the ticket's team says which pages may read."""
    url = (await create(gateway, model="acme/storyteller")).json["urls"]["stream"]
    assert_readable(await ask(gateway, "GET", url, key=None, headers={"Origin": PAGE}))
    foreign = await ask(gateway, "GET", url, key=None, headers={"Origin": STRANGER})
    assert "Access-Control-Allow-Origin" not in foreign.headers
    others = (await create(gateway, key="beta", model="acme/storyteller")).json["urls"]["stream"]
    not_its = await ask(gateway, "GET", others, key=None, headers={"Origin": PAGE})
    assert "Access-Control-Allow-Origin" not in not_its.headers


async def test_page_of_one_team_cannot_use_another_teams_key(gateway: Stack):
    """Beta lists no page, so a response to beta's key is readable by no page."""
    reply = await ask(gateway, "GET", "/v1/account", key="beta", headers={"Origin": PAGE})
    assert reply.status == 200
    assert "Access-Control-Allow-Origin" not in reply.headers


async def test_wildcard_origin_allows_no_credentials(open_gateway: OpenGateway):
    """`*` with credentials would let every site act for every user; browsers refuse it, and so does the gateway."""
    async with open_gateway(teams={"beta": {"origins": ["*"]}}) as stack:
        for reply in (
            await ask(stack, "GET", "/v1/account", key="beta", headers={"Origin": STRANGER}),
            await preflight(stack, "GET", "/v1/account", STRANGER),
        ):
            assert reply.headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in reply.headers
            assert "Origin" in reply.headers["Vary"]
        alphas = await ask(stack, "GET", "/v1/account", headers={"Origin": STRANGER})
        assert "Access-Control-Allow-Origin" not in alphas.headers
        assert_readable(await ask(stack, "GET", "/v1/account", headers={"Origin": PAGE}))


async def test_vary_is_sent_without_an_origin_too(gateway: Stack):
    """A cache in between must not give one page's response to another."""
    for path in ("/v1/account", "/v1/models", "/healthz", "/v1/nothing"):
        reply = await ask(gateway, "GET", path)
        assert "Origin" in reply.headers["Vary"]
        assert "Access-Control-Allow-Origin" not in reply.headers


async def test_options_request_that_is_no_preflight_is_answered(gateway: Stack):
    """Monitoring sends OPTIONS; it runs nothing."""
    reply = await ask(gateway, "OPTIONS", "/v1/predictions", key=None)
    assert reply.status == 204
    assert "POST" in reply.headers["Allow"]
    star = await send_raw(gateway, raw_request("OPTIONS", "*"))
    assert star.status in (204, 404)
    assert not len(gateway.upstream.requests)
