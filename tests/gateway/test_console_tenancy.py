"""Tenancy of the console: whoever looks after one team sees and changes nothing of another, however it signed in."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from yarl import URL

from gateway.http.ops.dashboard_access import ADMIN_COOKIE, COOKIE
from tests.support.console import failed_delivery, told
from tests.support.console_sign_in import signed_in, table
from tests.support.dashboard import OURS, look, sign_in, token_of, visitor
from tests.support.issuers import provider
from tests.support.ops_routes import is_page, ops_routes
from tests.support.session_calls import ask, open_session
from tests.support.stack import OpenGateway, Stack

NOBODYS = "z" * 26
PUBLIC = ("/dashboard/sign-in", "/dashboard/sign-out", "/dashboard/files/{name}")


@asynccontextmanager
async def lead_of_beta(
    open_gateway: OpenGateway, guarded: dict[str, Any], by: str
) -> AsyncIterator[tuple[Stack, aiohttp.ClientSession]]:
    """Sign in as who looks after team beta: with a key of the team, or as an issuer says."""
    async with provider() as issuer, open_gateway(**table(issuer), **guarded) as stack, visitor(stack) as lead:
        if by == "key":
            assert (await sign_in(lead, stack.keys["beta"])).status == 303
        else:
            assert (await signed_in(lead, issuer, ["beta-leads"])).status == 200
        yield stack, lead


@pytest.mark.parametrize("by", ["key", "issuer"])
async def test_lead_sees_and_changes_its_own_team_only(open_gateway: OpenGateway, guarded: dict[str, Any], by: str):
    """On every route of the listener. What is another team's is like what does not exist."""
    async with lead_of_beta(open_gateway, guarded, by) as (stack, lead):
        mine, other = await told(stack, "beta"), await told(stack, "alpha", {"prompt": "of alpha"})
        webhook, foreign_webhook = await failed_delivery(stack, "beta"), await failed_delivery(stack, "alpha")
        async with open_session(stack, "alpha") as alpha:
            foreign_key = (await ask(alpha, "POST", "/gateway/keys", json={"name": "of alpha"})).json["id"]
        page = (await look(lead, "/dashboard/keys")).text
        session = lead.cookie_jar.filter_cookies(URL(stack.ops_url) / "dashboard")[COOKIE].value
        asked: set[str] = set()
        for method, path in ops_routes():
            if path.startswith(PUBLIC) or path in ("/", "/healthz", "/readyz"):
                continue
            if not is_page(path):
                for cookie, status in ((COOKIE, 401), (ADMIN_COOKIE, 403 if path.startswith("/admin/") else 401)):
                    headers = {"Cookie": f"{cookie}={session}", **OURS}
                    reply = await ask(lead, method, path.replace("{id}", mine), headers=headers)
                    assert reply.status == status, (method, path, cookie)
                continue
            asked.add(path)
            if method == "POST":
                foreign = foreign_webhook if "webhooks" in path else foreign_key
                for subject in (foreign, NOBODYS):
                    if path.endswith("create"):
                        continue
                    fields = {"id": subject, "form_token": token_of(page)}
                    form = {"data": fields, "headers": OURS, "allow_redirects": False}
                    assert (await ask(lead, method, path, **form)).status == 404, (path, subject)
            elif path == "/dashboard/events":
                async with lead.get(path) as stream:
                    event = await stream.content.readuntil(b"\n\n")
                assert b"beta" in event
                assert b"alpha" not in event
            elif "{id}" in path:
                seen = [await look(lead, path.format(id=each, place=0)) for each in (other, NOBODYS)]
                assert (seen[0].status, seen[0].text) == (seen[1].status, seen[1].text) == (404, seen[1].text)
            elif path == "/dashboard/nodes":
                assert (await look(lead, path)).status == 404
            else:
                for query in ("", "?team=alpha"):
                    reply = await look(lead, path + query)
                    assert reply.status == 200, path
                    shown = reply.text.replace('value="alpha"', "")  # what the filter was asked for
                    assert "alpha" not in shown, (path, query)
        assert {"/dashboard/keys", "/dashboard/audit", "/dashboard/usage.csv", "/dashboard/webhooks/redeliver"} <= asked
        assert (await look(lead, f"/dashboard/predictions/{mine}")).status == 200
        form = {"data": {"id": webhook, "form_token": token_of(page)}, "headers": OURS, "allow_redirects": False}
        assert (await ask(lead, "POST", "/dashboard/webhooks/redeliver", **form)).status == 303
        entries = (await look(lead, "/dashboard/audit")).text
        assert ("issuer:id:ann" if by == "issuer" else "key:beta/default") in entries
        assert foreign_key not in entries
