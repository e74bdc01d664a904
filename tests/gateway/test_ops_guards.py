"""Guards of the ops listener: without a token it answers loopback names only; sign-ins are limited by address."""

import aiohttp
import pytest

from gateway.http.ops.dashboard_access import PATH
from tests.support.http_calls import STRANGER
from tests.support.ops_routes import is_page, ops_routes
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import AdvancingClock


async def status_of(stack: Stack, method: str, path: str, host: str) -> int:
    async with (
        aiohttp.ClientSession(stack.ops_url) as session,
        session.request(method, path, headers={"Host": host}, allow_redirects=False) as response,
    ):
        return response.status


FOREIGN = (
    "attacker.example:9464", "localhost.attacker.example", "169.254.169.254", "127.0.0.1.nip.io", "0.0.0.0", "[::]:1",
    "attacker.example@127.0.0.1", "attacker.example#@127.0.0.1",
)  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ops_routes())
async def test_without_a_token_other_host_names_are_refused(gateway: Stack, method: str, path: str):
    """A page whose name is made to resolve to 127.0.0.1 reads neither metrics nor config, and deletes nothing."""
    for host in FOREIGN:
        assert await status_of(gateway, method, path, host) == 403, host


@pytest.mark.parametrize("host", ["127.0.0.1:9464", "localhost:9464", "LOCALHOST", "[::1]:9464", "127.0.0.2"])
async def test_without_a_token_loopback_names_are_answered(gateway: Stack, host: str):
    """Prometheus on the same machine and SSH tunnels work."""
    for path in ("/metrics", "/admin/config", "/healthz"):
        assert await status_of(gateway, "GET", path, host) == 200


@pytest.mark.parametrize("token", [{}, {"token_env": "KEY_ALPHA"}])
async def test_address_of_the_listener_leads_to_the_console(open_gateway: OpenGateway, token: dict[str, str]):
    """Without a token it works from loopback names, as everything does; the console has its own sign-in."""
    async with (
        open_gateway(ops=token) as stack,
        aiohttp.ClientSession(stack.ops_url) as session,
        session.get("/", allow_redirects=False) as response,
    ):
        assert (response.status, response.headers["Location"]) == (303, PATH)


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/admin/config", "/openapi.json", "/nope", PATH])
async def test_no_response_reveals_a_version(gateway: Stack, path: str):
    """aiohttp's own header names the versions of Python and aiohttp."""
    async with (
        aiohttp.ClientSession(gateway.ops_url) as session,
        session.get(path, allow_redirects=False) as response,
    ):
        assert response.headers.getall("Server") == ["replicate-gateway"]


async def test_with_a_token_any_host_name_is_answered(open_gateway: OpenGateway):
    """The token is the permission: a page of another name does not have it."""
    async with open_gateway(ops={"token_env": "KEY_ALPHA"}) as stack:
        assert await status_of(stack, "GET", "/healthz", "gateway.internal:9464") == 200
        assert await status_of(stack, "GET", "/metrics", "gateway.internal:9464") == 401


async def test_with_a_token_every_route_needs_it(open_gateway: OpenGateway):
    """Neither no credential nor a team's key, whatever its scopes, opens a route of operators."""
    clock = AdvancingClock()
    async with open_gateway(ops={"token_env": "KEY_ALPHA"}, clock=clock) as stack:
        for method, path in ops_routes():
            if path in ("/", "/healthz", "/readyz") or is_page(path):
                continue
            for given in (None, "Bearer ", f"Bearer {stack.keys['operator']}"):
                async with (
                    aiohttp.ClientSession(stack.ops_url) as session,
                    session.request(
                        method,
                        path.replace("{id}", "a" * 26),
                        headers={} if given is None else {"Authorization": given},
                    ) as response,
                ):
                    assert response.status == 401, (method, path)
                clock.advance(6)  # so that there are not too many attempts


async def test_pages_of_other_origins_change_nothing(gateway: Stack):
    """Without a token, a page in a browser of the machine could otherwise have webhooks delivered again."""
    for method, path in ops_routes():
        for headers in ({"Origin": STRANGER}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            if method in ("GET", "HEAD"):
                continue
            async with (
                aiohttp.ClientSession(gateway.ops_url, headers=headers) as session,
                session.request(method, path.replace("{id}", "a" * 26), allow_redirects=False) as response,
            ):
                assert response.status == 403, (method, path)


async def test_failed_sign_ins_are_limited_and_recover(open_gateway: OpenGateway):
    """After ten wrong tokens the right one is not tried either; some seconds later it works."""
    clock = AdvancingClock()
    async with open_gateway(ops={"token_env": "KEY_ALPHA"}, clock=clock) as stack:

        async def sign_in(secret: str) -> aiohttp.ClientResponse:
            async with (
                aiohttp.ClientSession(stack.ops_url) as session,
                session.post("/dashboard/sign-in", data={"secret": secret}, allow_redirects=False) as response,
            ):
                await response.read()
                return response

        for _ in range(15):
            assert (await sign_in(stack.keys["alpha"])).status == 303, "sign-ins that succeed are not limited"
        statuses = [(await sign_in(f"wrong-{number}")).status for number in range(12)]
        assert statuses == [401] * 10 + [429] * 2
        refused = await sign_in(stack.keys["alpha"])
        assert refused.status == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 6
        clock.advance(7)
        assert (await sign_in(stack.keys["alpha"])).status == 303
