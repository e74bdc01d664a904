"""A real OpenID provider: npm oidc-provider. Its users call the gateway with what they signed in with."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from gateway.app import running
from gateway.simulator import Simulator
from tests.support.http_calls import ask
from tests.support.issuers import AUDIENCE
from tests.support.node import CLIENTS, node_22, run_script
from tests.support.pages import bundle_page, serve_site
from tests.support.stack import Stack, stack_config, start_gateway
from tests.support.tools import clean_environment, require_tool
from tests.support.upstream import assert_upstream_saw_no_key, version_of

pytestmark = [pytest.mark.node, pytest.mark.timeout(90)]


@asynccontextmanager
async def provider(page: str) -> AsyncIterator[str]:
    """Run the provider for a page at an origin. Return its issuer."""
    process = await asyncio.create_subprocess_exec(
        str(node_22()),
        str(CLIENTS / "provider.mjs"),
        cwd=CLIENTS,
        env=clean_environment(ARGUMENTS=json.dumps({"page": page, "audience": AUDIENCE})),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            if line.startswith(b"{"):
                yield json.loads(line)["issuer"]
                return
        raise AssertionError("the provider did not start")
    finally:
        process.kill()
        await process.wait()


def table(issuer: str, **more: object) -> dict[str, object]:
    return {
        "issuer": issuer,
        "name": "id",
        "audience": AUDIENCE,
        "team": "alpha",
        "scope_claim": "scope",
        "allow_private_addresses": True,
        **more,
    }


async def test_a_server_calls_with_a_token_of_its_own(clients: Path, upstream: Simulator, tmp_path: Path):
    """Client credentials (RFC 6749, 4.4), for the resource that the gateway is (RFC 8707). Its scopes count."""
    async with provider("http://127.0.0.1:1") as issuer:
        wanted = {"grant_type": "client_credentials", "scope": "read", "resource": AUDIENCE}
        async with (
            aiohttp.ClientSession(headers={"Authorization": aiohttp.encode_basic_auth("app", "app-secret")}) as session,
            session.post(f"{issuer}/token", data=wanted) as answer,
        ):
            token = (await answer.json())["access_token"]
        async with start_gateway(upstream, tmp_path, issuers=[table(issuer, origins="none")]) as stack:
            assert (await ask(stack, "GET", "/v1/models", key=token)).status == 200
            refused = await ask(stack, "GET", "/v1/predictions", key=token)
            assert (refused.status, "'predict'" in refused.text) == (403, True)
            assert (await ask(stack, "GET", "/v1/models", key=token[:-4] + "AAAA")).status == 401
            assert_upstream_saw_no_key(stack)


@pytest.mark.chromium
async def test_a_page_signs_in_and_runs_and_streams(clients: Path, upstream: Simulator, tmp_path: Path):
    """Authorization code with PKCE, then npm `replicate` with the token: the application has no server at all."""
    story = {"prompt": "a llama in the snow", "seed": 7, "max_tokens": 24, "duration": 2.0}
    script = bundle_page(clients, tmp_path / "page.js", CLIENTS / "signin-page.mjs")
    async with (
        serve_site(script) as site,
        provider(site.listed) as issuer,
        start_gateway(
            upstream,
            tmp_path,
            teams={"alpha": {"origins": [site.listed]}},
            issuers=[table(issuer, per_user={"budget_usd_per_day": 1})],
        ) as stack,
    ):
        settings = {
            "issuer": issuer,
            "audience": AUDIENCE,
            "gateway": stack.base_url,
            "ref": f"acme/storyteller:{version_of(upstream, 'acme/storyteller')}",
            "input": story,
        }
        done = await run_script(
            "signin.mjs",
            "signIn",
            base_url=stack.base_url,
            key="no key",
            executable=require_tool("chromium"),
            profile=str(tmp_path / "profile"),
            page=site.listed,
            user="ann",
            settings=settings,
        )
        assert done.error is None, done.error
        seen = done.result["result"]
        assert seen["ran"] == "".join(upstream.predictions[0].output)
        assert seen["streamed"] == "".join(upstream.predictions[1].output)
        assert seen["events"].count("done") == 1
        assert seen["listed"] == 2
        assert seen["claims"]["sub"] == "ann"
        usage = (await ask(stack, "GET", "/gateway/usage?by=user")).json
        assert [each["user"] for each in usage["rows"]] == ["id:ann"]
        assert_upstream_saw_no_key(stack)


@pytest.mark.chromium
async def test_people_sign_in_to_the_console(clients: Path, upstream: Simulator, tmp_path: Path):
    """With their accounts, by keyboard, in both colours: an operator sees all teams, the lead of a team that one."""
    console = {
        "client_id": "console",
        "client_secret_file": str(tmp_path / "secret"),
        "scopes": ["openid", "groups"],
        "operator_claim": "groups",
        "operators": ["platform"],
        "lead_claim": "groups",
        "leads": {"beta-leads": "beta"},
    }
    (tmp_path / "secret").write_text("console-secret+/:%")
    async with provider("http://127.0.0.1:1") as issuer:
        given = {"issuer": issuer, "name": "id", "allow_private_addresses": True, "console": console}
        config, keys = await asyncio.to_thread(
            stack_config, upstream, tmp_path, ops={"token_env": "KEY_OPERATOR"}, issuers=[given]
        )
        async with running(config) as gateway:
            stack = Stack(gateway, upstream, keys, config, tmp_path / "gateway.db")
            done = await run_script(
                "dashboard.mjs",
                "issuer",
                base_url=stack.base_url,
                key="no key",
                executable=require_tool("chromium"),
                profile=str(tmp_path / "profile"),
                # Another site than the provider: a cookie of SameSite=Strict is kept back on the way from there.
                address=f"{stack.ops_url.replace('127.0.0.1', 'localhost')}/dashboard",
                asked="/usage?by=day",
                issuer=issuer,
                people=[{"user": "platform", "scheme": "light"}, {"user": "beta-leads", "scheme": "dark"}],
                paths=["/dashboard", "/dashboard/keys", "/dashboard/nodes", "/admin/teams"],
            )
            assert done.error is None, done.error
            assert not [each for each in done.result["complaints"] if "Content Security Policy" in each]
            assert done.result["seen"].keys() == {"platform", "beta-leads"}
            for user, seen in done.result["seen"].items():
                is_operator = user == "platform"
                assert (seen["named"], seen["violations"]) == ("Sign in with id", [])
                assert seen["outlineStyle"] != "none"
                cookies = {(each["name"], each["httpOnly"], each["sameSite"]) for each in seen["cookies"]}
                assert cookies == {("gateway_dashboard", True, "Strict")}
                assert seen["shown"] == {
                    "/dashboard": [200, is_operator],
                    "/dashboard/keys": [200, is_operator],
                    "/dashboard/nodes": [200 if is_operator else 404, False],
                    "/admin/teams": [200 if is_operator else 401, is_operator],
                }
                assert seen["afterwards"].endswith("/dashboard/sign-in?next=%2Fdashboard%2Fkeys")
            assert_upstream_saw_no_key(stack)
