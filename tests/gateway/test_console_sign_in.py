"""Signing in to the console at an issuer: the flow, the sessions, and who sees what."""

import re
from base64 import b64decode
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from yarl import URL

from gateway.app import running
from gateway.config import Config
from gateway.http.ops import dashboard_issuers
from gateway.http.ops.dashboard_access import ADMIN_COOKIE, COOKIE
from tests.support.console_sign_in import BACK, CONSOLE, TEAMS, come_back, go, signed_in, table
from tests.support.dashboard import OURS, look, sign_in, token_of, visitor
from tests.support.issuers import Provider, provider
from tests.support.secret_scanner import SecretScanner
from tests.support.session_calls import Reply, ask
from tests.support.stack import OpenGateway, Stack, stack_config
from tests.support.system_clocks import AdvancingClock


@pytest.fixture
async def issuer() -> AsyncIterator[Provider]:
    """Where people sign in."""
    async with provider() as made:
        yield made


@pytest.fixture
async def stack(open_gateway: OpenGateway, guarded: dict[str, Any], issuer: Provider) -> AsyncIterator[Stack]:
    """A gateway with a token of operators, and an issuer for its console alone."""
    async with open_gateway(**table(issuer), **guarded) as made:
        yield made


async def submit(browser: aiohttp.ClientSession, path: str, page: str, **fields: Any) -> Reply:
    form = {"data": {**fields, "form_token": token_of(page)}, "headers": OURS, "allow_redirects": False}
    return await ask(browser, "POST", path, **form)


async def metrics_with_token(stack: Stack) -> str:
    async with visitor(stack, Authorization=f"Bearer {stack.keys['alpha']}") as program:
        reply: Reply = await look(program, "/metrics")
        assert reply.status == 200
        return reply.text


async def audited(stack: Stack) -> list[dict[str, Any]]:
    async with visitor(stack, Authorization=f"Bearer {stack.keys['alpha']}") as program:
        found: list[dict[str, Any]] = (await look(program, "/admin/audit")).json["results"]
        return found


async def test_operator_signs_in_and_out(stack: Stack, issuer: Provider):
    """The person lands where it wanted to go, may do all that operators may, and is named in the audit log."""
    async with visitor(stack) as browser:
        left = await look(browser, "/dashboard/usage?by=day")
        address = await go(browser, left.headers["Location"].partition("next=")[2])
        assert URL(address).query["redirect_uri"] == f"{stack.ops_url}{BACK}"
        back = await come_back(
            browser, issuer.sign_in(address, groups=["x", "platform"]), **{"Sec-Fetch-Dest": "document"}
        )
        assert back.status == 200
        # On the way back from another site, a redirect would not have the cookie.
        assert '<meta http-equiv="refresh" content="0; url=/dashboard/usage?by=day">' in back.text
        set_ = [each for name, each in back.headers.items() if name == "Set-Cookie"]
        for name, path in ((COOKIE, "/dashboard"), (ADMIN_COOKIE, "/admin")):
            (cookie,) = [each for each in set_ if each.startswith(f"{name}=")]
            for word in ("HttpOnly", "SameSite=Strict", f"Path={path}", "Max-Age=28800"):
                assert word in cookie
        assert any(each.startswith(f'{dashboard_issuers.ATTEMPT_COOKIE}=""') for each in set_)
        assert "Nodes" in (await look(browser, "/dashboard")).text
        made = await ask(browser, "POST", "/admin/keys", json={"team": "alpha", "name": "made"}, headers=OURS)
        assert made.status == 201
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert (await ask(browser, "DELETE", "/admin/cache", headers=foreign)).status == 403
        page = (await look(browser, "/dashboard/keys")).text
        assert (await submit(browser, "/dashboard/keys/revoke", page, id=made.json["id"])).status == 200
        await ask(browser, "POST", "/dashboard/sign-out", headers=OURS, allow_redirects=False)
        assert (await look(browser, "/dashboard")).status == 303
        assert (await look(browser, "/admin/config")).status == 401
    actors = {each["action"]: each["actor"] for each in await audited(stack)}
    assert (actors["key.created"], actors["key.revoked"]) == ("issuer:id:ann",) * 2
    counted = await metrics_with_token(stack)
    assert 'replicate_gateway_console_sign_ins_total{issuer="id",outcome="operator"} 1.0' in counted


async def test_lead_manages_the_keys_of_the_team(stack: Stack, issuer: Provider):
    """Within what the team has, though no key of the team has the scope keys. Never those of others."""
    async with visitor(stack) as browser, visitor(stack) as operator:
        assert (await sign_in(operator, stack.keys["alpha"])).status == 303
        foreign = await ask(operator, "POST", "/admin/keys", json={"team": "beta", "scopes": ["read"]}, headers=OURS)
        strong = await ask(operator, "POST", "/admin/keys", json={"team": "beta", "scopes": ["admin"]}, headers=OURS)
        assert (foreign.status, strong.status) == (201, 201)
        assert (await signed_in(browser, issuer, "gamma-leads")).status == 200
        page = (await look(browser, "/dashboard/keys")).text
        assert set(re.findall(r'name="scopes" value="([a-z]+)"', page)) == {"read", "predict"}
        for fields, status in (
            ({"name": "mine", "scopes": "predict"}, 200),
            ({"name": "train", "scopes": "train"}, 422),
            ({"name": "account", "scopes": "account"}, 422),
            ({"name": "model", "models": "acme/painter"}, 422),
            ({"name": "foreign", "team": "beta", "scopes": "read"}, 200),
        ):
            assert (await submit(browser, "/dashboard/keys/create", page, **fields)).status == status, fields
        entries = [each for each in await audited(stack) if each["actor"] == "issuer:id:ann"]
        assert {(each["action"], each["team"]) for each in entries} == {("key.created", "gamma")}
        mine, theirs = entries[0]["subject"], foreign.json["id"]
        for act in ("rotate", "revoke"):
            assert (await submit(browser, f"/dashboard/keys/{act}", page, id=theirs)).status == 404
            assert (await submit(browser, f"/dashboard/keys/{act}", page, id=mine)).status in (200, 303)
        assert (await ask(browser, "GET", "/admin/keys")).status == 401
    async with visitor(stack) as browser:
        assert (await signed_in(browser, issuer, "beta-leads")).status == 200
        page = (await look(browser, "/dashboard/keys")).text
        assert (await submit(browser, "/dashboard/keys/revoke", page, id=strong.json["id"])).status == 403
        assert (await submit(browser, "/dashboard/keys/revoke", page, id=theirs)).status == 200


async def test_who_is_in_no_list_is_refused(stack: Stack, issuer: Provider):
    """With the reason, and no session. So is who declines, and who comes with what was not asked for."""
    async with visitor(stack) as browser:
        for claims, words in (
            ({"groups": ["users"]}, "has no value that is known here"),
            ({}, "lacks the claim &#39;groups&#39;"),
            ({"groups": "platform", "aud": "other"}, "for another client (aud)"),
            ({"groups": "platform", "nonce": "x"}, "another sign-in (nonce)"),
            ({"groups": "platform", "exp": 1}, "has expired"),
        ):
            refused = await come_back(browser, issuer.sign_in(await go(browser), **claims))
            assert refused.status == 403
            assert words in refused.text
            assert "Sign in with id" in refused.text
            assert "aria-invalid" not in refused.text
            assert f"{COOKIE}=" not in str(refused.headers)
        answer = issuer.sign_in(await go(browser))
        refused = await come_back(browser, answer | {"error": "<b>x</b>", "error_description": "<b>call</b>"})
        assert (refused.status, "<b>" in refused.text, "call" in refused.text) == (403, False, False)
        assert (await look(browser, "/dashboard")).status == 303


async def test_answer_counts_once_and_in_its_browser(stack: Stack, issuer: Provider):
    """Neither again, nor elsewhere, nor with another state, nor with parameters given twice."""
    async with visitor(stack) as browser, visitor(stack) as victim:
        answer = issuer.sign_in(await go(browser), groups="platform")
        await go(victim)
        assert (await come_back(victim, answer)).status == 403
        twice = str(URL(BACK).with_query([*answer.items(), ("state", answer["state"])]))
        assert (await look(browser, twice)).status == 403
        answer = issuer.sign_in(await go(browser), groups="platform")
        kept = browser.cookie_jar.filter_cookies(URL(stack.ops_url) / "dashboard/sign-in/callback")
        copied = "; ".join(f"{each.key}={each.value}" for each in kept.values())
        assert (await come_back(browser, answer)).status == 200
        again = await come_back(victim, answer, Cookie=copied)
        assert (again.status, len(issuer.redeemed)) == (403, 1)


async def test_issuer_cannot_have_the_answer_of_another_one(
    open_gateway: OpenGateway, guarded: dict[str, Any], issuer: Provider
):
    """It sends on somebody who signs in, with what it was asked for at the other one, and wants the code."""
    async with provider() as bad:
        given = {"issuer": bad.url, "name": "bad", "allow_private_addresses": True, "console": CONSOLE}
        both = table(issuer) | {"issuers": [*table(issuer)["issuers"], given]}
        async with open_gateway(**both, **guarded) as stack, visitor(stack) as victim, visitor(stack) as attacker:
            wanted = URL(await go(attacker)).query
            sent = await look(victim, "/dashboard/sign-in/start?issuer=bad")
            asked = URL(str(sent.headers["Location"])).query
            own = str(URL(stack.ops_url).with_path(BACK))
            assert asked["redirect_uri"] == f"{own.removesuffix('id')}bad"
            # The other one has registered its own address only.
            forged = {**asked, "redirect_uri": own} | {name: wanted[name] for name in ("nonce", "code_challenge")}
            answer = issuer.sign_in(str(URL(f"{issuer.url}/authorization").with_query(forged)), groups="platform")
            assert (await come_back(victim, answer)).status == 403
            assert (issuer.redeemed, bad.redeemed) == ([], [])


async def test_page_of_another_site_uses_up_nothing(stack: Stack):
    """An image or a frame cannot count as failed sign-ins of whoever looks at it. A window does."""
    async with visitor(stack) as browser:
        for _ in range(12):
            assert (await come_back(browser, {"code": "x"}, **{"Sec-Fetch-Dest": "iframe"})).status == 403
        statuses = [(await come_back(browser, {"code": "x"})).status for _ in range(12)]
        assert statuses == [403] * 10 + [429] * 2
        async with browser.head(BACK) as reply:
            assert reply.status == 405


async def test_sign_in_leads_to_the_console_only(stack: Stack, issuer: Provider):
    """Whatever the address says, by an issuer and by the form."""
    async with visitor(stack) as browser:
        for asked in ("https://evil.example", "//evil.example", "/admin/config", "/dashboard/../admin"):
            back = await come_back(browser, issuer.sign_in(await go(browser, asked), groups="platform"))
            assert 'content="0; url=/dashboard">' in back.text
        for asked, expected in (("//evil.example", "/dashboard"), ("/dashboard/keys?x=y", "/dashboard/keys?x=y")):
            form = {"data": {"secret": stack.keys["alpha"], "next": asked}, "headers": OURS, "allow_redirects": False}
            assert (await ask(browser, "POST", "/dashboard/sign-in", **form)).headers["Location"] == expected


async def test_sign_in_that_cannot_start_is_a_page(stack: Stack, issuer: Provider):
    """While the issuer is away, or from another host if the config names none: it would send people anywhere."""
    issuer.status = 500
    async with visitor(stack) as browser:
        away = await look(browser, "/dashboard/sign-in/start?issuer=id")
        assert (away.status, away.headers["Retry-After"]) == (503, "10")
        assert "cannot be asked who you are: it responded with 500" in away.text
        assert (await look(browser, "/dashboard/sign-in/start?issuer=other")).status == 404
        refused = await look(browser, "/dashboard/sign-in/start?issuer=id", headers={"Host": "evil.example"})
        assert (refused.status, "needs [ops] public_url" in refused.text) == (403, True)
        for path in ("start?issuer=id", "callback/id?code=x"):
            for host in ("[1.2.3.4]", "[::::]", "[::1"):
                assert (await look(browser, f"/dashboard/sign-in/{path}", headers={"Host": host})).status == 400
        assert (await sign_in(browser, stack.keys["beta"])).status == 303


async def test_secret_goes_to_the_token_endpoint_only(
    open_gateway: OpenGateway, guarded: dict[str, Any], issuer: Provider, secret_scanner: SecretScanner
):
    """Neither code, nor secret, nor ID token is in a log or an answer."""
    secret_scanner.add("a code", "code-0")
    given = table(issuer, client_secret_env="KEY_BETA")
    async with open_gateway(**given, **guarded) as stack, visitor(stack) as browser:
        assert (await signed_in(browser, issuer, "platform")).status == 200
        ((authorization, sent),) = issuer.redeemed
        assert authorization is not None
        assert b64decode(authorization.removeprefix("Basic ")).decode() == f"console:{stack.keys['beta']}"
        assert "client_secret" not in sent
        issuer.token_error = "invalid_client"
        refused = await signed_in(browser, issuer, "platform")
        assert (refused.status, "(invalid_client)" in refused.text) == (403, True)
        secret_scanner.scan("the metrics", (await metrics_with_token(stack)).encode())


async def test_sessions_end_with_the_config(upstream: Any, folder: Any, issuer: Provider):
    """A reload without the person's group, or without the issuer, ends the session at once."""
    found: list[Config] = []
    ops = {"token_env": "KEY_ALPHA"}
    config, keys = stack_config(upstream, folder, ops=ops, **table(issuer))
    async with running(config, reread=lambda: found[-1]) as gateway:
        stack = Stack(gateway, upstream, keys, config, folder / "gateway.db")
        async with visitor(stack) as operator, visitor(stack) as lead:
            assert (await signed_in(operator, issuer, "platform")).status == 200
            assert (await signed_in(lead, issuer, "beta-leads")).status == 200
            for given, expected in (
                (table(issuer, leads={"gamma-leads": "gamma"}), (200, 303)),
                (table(issuer, operators=["sre"]), (303, 200)),
                ({"teams": TEAMS}, (303, 303)),
                (table(issuer), (200, 200)),
            ):
                found.append(stack_config(upstream, folder, keys, ops=ops, **given)[0])
                assert gateway.reloading is not None
                assert await gateway.reloading.reload()
                statuses = tuple([(await look(each, "/dashboard")).status for each in (operator, lead)])
                assert statuses == expected, given
                assert ((await look(operator, "/admin/config")).status == 200) == (expected[0] == 200)


async def test_redirect_uri_is_the_public_url(open_gateway: OpenGateway, guarded: dict[str, Any], issuer: Provider):
    """Whatever the request says its host is. Pages of lists are there too."""
    ops = guarded["ops"] | {"public_url": "https://ops.example.com/"}
    async with open_gateway(**table(issuer), ops=ops) as stack, visitor(stack) as browser:
        page = await look(browser, "/dashboard/sign-in", headers={"Host": "evil.example"})
        assert 'href="https://ops.example.com/dashboard/sign-in/start?issuer=id' in page.text
        own = await look(browser, "/dashboard/sign-in/start?issuer=id", headers={"Host": "ops.example.com"})
        assert "Secure" in own.headers["Set-Cookie"]
        left = await look(browser, "/dashboard/sign-in/start?issuer=id", headers={"Host": "evil.example"})
        assert "Secure" not in left.headers["Set-Cookie"]
        assert URL(left.headers["Location"]).query["redirect_uri"] == f"https://ops.example.com{BACK}"
        async with visitor(stack, Authorization=f"Bearer {stack.keys['alpha']}") as program:
            listed = (await look(program, "/admin/keys?limit=1&team=beta")).json
            assert listed["next"] is None
            listed = (await look(program, "/admin/keys?limit=1")).json
            assert listed["next"].startswith("https://ops.example.com/admin/keys?limit=1&cursor=")


async def test_lists_behind_a_proxy_have_its_scheme(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """As the links of callers have."""
    server = {"trusted_proxies": ["127.0.0.0/8"]}
    async with open_gateway(server=server, **guarded) as stack:
        headers = {"Authorization": f"Bearer {stack.keys['alpha']}", "X-Forwarded-Proto": "https"}
        async with visitor(stack, **headers, **{"X-Forwarded-Host": "ops.example.com"}) as program:
            listed = (await look(program, "/admin/keys?limit=1")).json
            assert listed["next"].startswith("https://ops.example.com/admin/keys?")


async def test_wrong_tokens_in_the_header_are_limited(open_gateway: OpenGateway, guarded: dict[str, Any]):
    """The right one is accepted all the same, and the form does not notice."""
    clock = AdvancingClock()
    async with open_gateway(clock=clock, **guarded) as stack, visitor(stack) as program:

        async def status(token: str, path: str = "/admin/config") -> int:
            return int((await look(program, path, headers={"Authorization": f"Bearer {token}"})).status)

        assert [await status(f"wrong-{number}") for number in range(9)] == [401] * 9
        assert await status("wrong", "/dashboard") == 401
        assert [await status("wrong", path) for path in ("/metrics", "/dashboard", "/admin/keys")] == [429] * 3
        assert await status(stack.keys["alpha"]) == 200
        assert await status(stack.keys["alpha"], "/dashboard") == 200
        assert await status(stack.keys["beta"], "/dashboard") == 200
        assert (await look(program, "/admin/config")).status == 401
        assert (await sign_in(program, stack.keys["alpha"])).status == 303
        clock.advance(7)
        assert await status("wrong") == 401


async def test_without_a_token_nobody_needs_to_sign_in(open_gateway: OpenGateway, issuer: Provider):
    """Everybody on the machine is an operator."""
    async with open_gateway(**table(issuer)) as stack, visitor(stack) as browser:
        for path in ("start?issuer=id", "callback/id?code=x"):
            assert (await look(browser, f"/dashboard/sign-in/{path}")).headers["Location"] == "/dashboard"


async def test_issuer_of_the_console_alone_gives_no_access_to_the_api(stack: Stack, issuer: Provider):
    """An account of staff is not a user of an application."""
    for audience in ("console", ["console", "https://gateway.example.com"]):
        async with visitor(stack) as program:
            headers = {"Authorization": f"Bearer {issuer.token(aud=audience, groups='platform')}"}
            refused = await ask(program, "GET", f"{stack.origin}/v1/predictions", headers=headers)
            assert (refused.status, "another audience" in refused.text) == (401, True)
            assert (await look(program, "/dashboard", headers=headers)).status == 401
            assert (await look(program, "/admin/config", headers=headers)).status == 401
