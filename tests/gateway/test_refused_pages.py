"""Pages that CORS refuses: operators find out which, and allowed pages may send what their tools add."""

import aiohttp
import pytest

from tests.support.access_log import AccessLog
from tests.support.dashboard import Tables
from tests.support.http_calls import PAGE, STRANGER, Reply, ask, metrics_of
from tests.support.samples import create
from tests.support.stack import OpenGateway, Stack

PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


async def preflight(stack: Stack, origin: str, **more: str) -> Reply:
    headers = {"Origin": origin} | PREFLIGHT | more
    return await ask(stack, "OPTIONS", "/v1/predictions", key=None, headers=headers)


async def dashboard_of(stack: Stack) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{stack.ops_url}/dashboard") as response:
        return await response.text()


async def test_refused_preflight_is_logged_counted_and_shown_with_its_origin(gateway: Stack, access_log: AccessLog):
    """A developer sees only "Failed to fetch"; the operator sees whose origin is missing."""
    assert (await preflight(gateway, PAGE)).status == 204
    for _ in range(3):
        reply = await preflight(gateway, "http://localhost:5173")
        assert "Access-Control-Allow-Origin" not in reply.headers
    fine, *refused = access_log.lines
    assert "origin" not in fine
    assert [(line["origin"], line["refused"]) for line in refused] == [
        ("http://localhost:5173", "origin not listed")
    ] * 3
    metrics = await metrics_of(gateway)
    assert 'replicate_gateway_cors_refusals_total{kind="preflight"} 3.0' in metrics
    assert 'replicate_gateway_cors_refusals_total{kind="request"} 0.0' in metrics
    assert "localhost:5173" not in metrics
    page = await dashboard_of(gateway)
    assert "<code>http://localhost:5173</code>" in page
    assert PAGE not in page


async def test_request_from_a_page_of_another_team_is_counted(gateway: Stack, access_log: AccessLog):
    """Its preflight was granted for another team, so only the request shows it."""
    await ask(gateway, "GET", "/v1/account", key="beta", headers={"Origin": PAGE})
    assert access_log.lines[-1]["origin"] == PAGE
    assert 'replicate_gateway_cors_refusals_total{kind="request"} 1.0' in await metrics_of(gateway)
    (row,) = Tables(await dashboard_of(gateway)).rows["refused-origins"]
    assert row[1:] == [PAGE, "beta", "1"]


async def test_page_of_the_gateways_own_origin_is_not_refused(gateway: Stack, access_log: AccessLog):
    """Browsers send Origin with same-origin POSTs; CORS does not apply to them."""
    assert (await create(gateway, headers={"Origin": gateway.origin})).status == 201
    assert "origin" not in access_log.lines[-1]


@pytest.mark.parametrize("origin", ["x" * 5000, "https://a b", 'https://"><script>', "https://" + "a" * 300])
async def test_origin_of_any_form_is_bounded_where_it_is_shown(gateway: Stack, access_log: AccessLog, origin: str):
    """Anybody can send any text as an origin."""
    await preflight(gateway, origin)
    assert access_log.lines[-1]["origin"] == "malformed"
    assert "<script>" not in await dashboard_of(gateway)


async def test_shown_origins_are_bounded_in_number(gateway: Stack):
    """The least recent one goes first."""
    for number in range(60):
        await preflight(gateway, f"https://page-{number}.example")
    page = await dashboard_of(gateway)
    assert "https://page-59.example" in page
    assert "https://page-9.example" not in page


async def test_origin_pattern_is_answered_like_a_listed_origin(open_gateway: OpenGateway):
    """Preview deployments have an origin each: by name and with credentials, in preflights, requests and streams."""
    pattern = "https://*.preview.example.com"
    async with open_gateway(teams={"alpha": {"origins": [pattern]}}) as stack:
        deep, bare, other = (
            "https://Pr-12.app.preview.example.com",
            "https://preview.example.com",
            "http://a.preview.example.com",
        )
        url = (await create(stack, model="acme/storyteller")).json["urls"]["stream"]
        for origin, is_allowed in ((deep, True), (bare, False), (other, False), (pattern, True), (STRANGER, False)):
            for reply in (
                await preflight(stack, origin),
                await ask(stack, "GET", "/v1/account", headers={"Origin": origin}),
                await ask(stack, "GET", url, key=None, headers={"Origin": origin}),
            ):
                assert reply.headers.get("Access-Control-Allow-Origin") == (origin if is_allowed else None)
                assert ("Access-Control-Allow-Credentials" in reply.headers) == is_allowed


async def test_browser_token_may_be_narrowed_to_a_page_or_pattern_of_the_teams(open_gateway: OpenGateway):
    """Never to an origin that the team's patterns do not match."""
    async with open_gateway(
        teams={"alpha": {"origins": ["https://*.example.com"], "scopes": ["tokens", "read"]}}
    ) as it:
        for origin, status in (
            ("https://a.example.com", 201),
            ("https://*.a.example.com", 201),
            ("https://example.com", 422),
            ("https://*.com", 422),
            ("http://a.example.com", 422),
        ):
            body = {"ttl_seconds": 60, "origins": [origin]}
            minted = await ask(it, "POST", "/gateway/tokens", json=body)
            assert minted.status == status, (origin, minted.text)
        token = (await ask(it, "POST", "/gateway/tokens", json={"ttl_seconds": 60})).json["token"]
        for origin, status in (("https://b.example.com", 200), ("https://example.com", 403), (STRANGER, 403)):
            reply = await ask(it, "GET", "/v1/account", key=token, headers={"Origin": origin})
            assert reply.status == status


@pytest.mark.parametrize(
    ("asked", "is_echoed"),
    [
        ("authorization,x-mine", True),
        (" X-Mine ,b3", True),
        ("x-mine,gateway-user", True),
        ("x-mine,b@d", False),
        ("x-mine,", False),
        ("x-mine," + ",".join(f"x-{n}" for n in range(63)), True),
        ("x-mine," + ",".join(f"x-{n}" for n in range(64)), False),
        ("x-mine," + "y" * 4100, False),
    ],
    ids=lambda value: str(value)[:24],
)
async def test_headers_that_a_page_asks_for_are_allowed_within_bounds(gateway: Stack, asked: str, is_echoed: bool):
    """A list that no browser sends is answered with the fixed one."""
    reply = await preflight(gateway, PAGE, **{"Access-Control-Request-Headers": asked})
    names = {name.strip().lower() for name in reply.headers["Access-Control-Allow-Headers"].split(",")}
    assert ("x-mine" in names) == is_echoed
    assert "authorization" in names
    assert names.isdisjoint({"gateway-user", "gateway-tags", "x-forwarded-for", "b@d", "", "*"})


async def test_unlisted_page_learns_no_header_names(gateway: Stack):
    """It gets what everybody gets."""
    reply = await preflight(gateway, STRANGER, **{"Access-Control-Request-Headers": "x-mine"})
    assert "x-mine" not in reply.headers["Access-Control-Allow-Headers"]
