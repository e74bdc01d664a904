"""Who may see the console: tokens, cookies, forms of other sites."""

from typing import Any

import pytest
from yarl import URL

from gateway.http.ops.dashboard_access import ADMIN_COOKIE, COOKIE
from tests.support.dashboard import OURS, look, sign_in, visitor
from tests.support.session_calls import ask, open_session
from tests.support.stack import OpenGateway


async def test_operator_signs_in_with_the_token_and_signs_out(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """The cookie is HttpOnly and SameSite and reveals nothing; the token itself appears nowhere."""
    async with open_gateway(**guarded) as stack, visitor(stack) as operator:
        token = stack.keys["alpha"]
        route = await look(operator)
        assert (route.status, route.headers["Location"]) == (303, "/dashboard/sign-in")
        assert (await look(operator, "/dashboard/sign-in")).status == 200
        opened = await sign_in(operator, token)
        assert (opened.status, opened.headers["Location"]) == (303, "/dashboard")
        cookie = opened.headers["Set-Cookie"]
        assert cookie.startswith(f"{COOKIE}=")
        for word in ("HttpOnly", "SameSite=Strict", "Path=/dashboard", "Max-Age=28800"):
            assert word in cookie
        assert "Secure" not in cookie
        assert token not in cookie
        page = await look(operator)
        assert page.status == 200
        assert "Requests in progress" in page.text
        assert "Sign out" in page.text
        assert token not in page.text
        left = await ask(operator, "POST", "/dashboard/sign-out", headers=OURS, allow_redirects=False)
        assert left.status == 303
        assert (await look(operator)).status == 303


async def test_operators_session_opens_the_admin_routes(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """A team's does not, and a page of another origin cannot change anything with it."""
    async with open_gateway(**guarded) as stack, visitor(stack) as operator, visitor(stack) as lead:
        assert (await look(operator, "/admin/config")).status == 401
        assert (await sign_in(operator, stack.keys["alpha"])).status == 303
        assert (await look(operator, "/admin/config")).status == 200
        assert (await look(operator, "/metrics")).status == 401
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert (await ask(operator, "DELETE", "/admin/cache", headers=foreign)).status == 403
        assert (await ask(operator, "DELETE", "/admin/cache", headers=OURS)).status == 200
        assert (await sign_in(lead, stack.keys["beta"])).status == 303
        assert (await look(lead, "/admin/config")).status == 401
        session = lead.cookie_jar.filter_cookies(URL(stack.ops_url) / "dashboard")[COOKIE].value
        forged = {"Cookie": f"{ADMIN_COOKIE}={session}"}
        assert (await look(lead, "/admin/config", headers=forged)).status == 403
        await ask(operator, "POST", "/dashboard/sign-out", headers=OURS, allow_redirects=False)
        assert (await look(operator, "/admin/config")).status == 401


async def test_sign_in_of_a_team_ends_the_operators_session_of_the_browser(
    open_gateway: OpenGateway, guarded: dict[str, Any]
):
    """Who signs in with a key of a team does not have the rights of who used the browser before."""
    async with open_gateway(**guarded) as stack, visitor(stack) as browser:
        assert (await sign_in(browser, stack.keys["alpha"])).status == 303
        assert (await look(browser, "/admin/config")).status == 200
        assert (await sign_in(browser, stack.keys["beta"])).status == 303
        assert (await look(browser, "/admin/config")).status == 401
        assert (await look(browser, "/dashboard")).status == 200


async def test_tls_terminating_proxy_makes_the_cookie_secure(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """Behind a proxy that says https, the session cookie is Secure."""
    server = {"trusted_proxies": ["127.0.0.0/8"]}
    async with open_gateway(server=server, **guarded) as stack, visitor(stack) as operator:
        opened = await sign_in(operator, stack.keys["alpha"], **OURS, **{"X-Forwarded-Proto": "https"})
        assert "Secure" in opened.headers["Set-Cookie"]


async def test_programs_authenticate_with_a_header(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """The ops token or a key works; a wrong one is a 401, not a sign-in form."""
    async with open_gateway(**guarded) as stack:
        expected = {stack.keys["alpha"]: "Requests in progress", stack.keys["beta"]: "Overview of team beta"}
        for secret, words in expected.items():
            async with visitor(stack, Authorization=f"Bearer {secret}") as program:
                page = await look(program)
                assert (page.status, words in page.text, "Set-Cookie" in page.headers) == (200, True, False)
        async with visitor(stack, Authorization="Bearer nonsense") as program:
            assert (await look(program)).status == 401
            assert (await look(program, "/dashboard/events")).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
async def test_cross_site_form_cannot_sign_in_or_out(
    open_gateway: OpenGateway, guarded: dict[str, Any], headers: dict[str, str]
):
    """This includes a service on another port of the same host, which shares its cookies."""
    async with open_gateway(**guarded) as stack, visitor(stack) as operator:
        refused = await sign_in(operator, stack.keys["alpha"], **headers)
        assert refused.status == 403
        assert "Set-Cookie" not in refused.headers
        assert (await ask(operator, "POST", "/dashboard/sign-out", headers=headers)).status == 403


async def test_same_origin_form_and_program_can_sign_in(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """The page's own form works, and so does a client that sends no Origin."""
    async with open_gateway(**guarded) as stack, visitor(stack) as operator:
        assert (await sign_in(operator, stack.keys["alpha"], Origin=stack.ops_url)).status == 303
        assert (await sign_in(operator, stack.keys["alpha"], Accept="*/*")).status == 303


async def test_wrong_secret_is_reported_in_the_form(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """The form comes back with an error and does not repeat what was typed."""
    keys = [
        {"name": "page", "origins": ["https://app.example.com"]},
        {"name": "reader", "scopes": ["read"]},
    ]
    async with open_gateway(teams={"beta": {"keys": keys}}, **guarded) as stack, visitor(stack) as stranger:
        refused = await sign_in(stranger, "<b>guess</b>")
        assert refused.status == 401
        assert "neither the operators" in refused.text
        assert 'aria-invalid="true"' in refused.text
        assert "guess" not in refused.text
        # What a page shows to everybody opens nothing, nor does a key that may not predict.
        for name in ("beta.page", "beta.reader"):
            assert (await sign_in(stranger, stack.keys[name])).status == 403
        async with open_session(stack, "beta") as beta:
            token = (await ask(beta, "POST", "/gateway/tokens", json={"ttl_seconds": 60})).json["token"]
        assert (await sign_in(stranger, token)).status == 403
        assert (await look(stranger)).status == 303
        bare = {"data": b"secret=x", "headers": {**OURS, "Content-Type": "text/plain"}}
        assert (await ask(stranger, "POST", "/dashboard/sign-in", **bare)).status == 400
        long = {"data": {"secret": "x" * 10_000}, "headers": OURS}
        assert (await ask(stranger, "POST", "/dashboard/sign-in", **long)).status == 401


async def test_dashboard_without_a_token_answers_loopback_only(open_gateway: OpenGateway):
    """A site whose name resolves to this machine (DNS rebinding) is refused; a loopback address is not."""
    async with open_gateway() as stack, visitor(stack) as operator:
        port = stack.ops_url.rpartition(":")[2]
        for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"):
            assert (await look(operator, headers={"Host": host})).status == 200, host
        for host in ("evil.example", f"evil.example:{port}", "10.0.0.1"):
            assert (await look(operator, headers={"Host": host})).status == 403, host
            assert (await look(operator, "/dashboard/events", headers={"Host": host})).status == 403, host
        assert (await look(operator, "/dashboard/sign-in")).headers["Location"] == "/dashboard"
