"""Signing in to the console at an issuer, as a browser does."""

import html
import re
from typing import Any

import aiohttp
from yarl import URL

from tests.support.dashboard import look
from tests.support.issuers import Provider
from tests.support.session_calls import Reply

BACK = "/dashboard/sign-in/callback/id"
CONSOLE: dict[str, Any] = {
    "client_id": "console",
    "operator_claim": "groups",
    "operators": ["platform"],
    "lead_claim": "groups",
    "leads": {"beta-leads": "beta", "gamma-leads": "gamma"},
}
TEAMS: dict[str, Any] = {"gamma": {"scopes": ["read", "predict"], "models": ["acme/storyteller"]}}


def table(issuer: Provider, **more: Any) -> dict[str, Any]:
    """Return the config of an issuer that is for the console alone, with other settings of its console."""
    given = {"issuer": issuer.url, "name": "id", "allow_private_addresses": True, "console": CONSOLE | more}
    return {"issuers": [given], "teams": TEAMS}


async def go(browser: aiohttp.ClientSession, asked: str = "") -> str:
    """Click on the button. Return where the issuer is asked."""
    page = await look(browser, f"/dashboard/sign-in?next={asked}")
    found = re.search(r'<a class="button" href="([^"]+)">Sign in with id</a>', page.text)
    assert found is not None
    left = await look(browser, html.unescape(found[1]))
    assert left.status == 303
    kept = left.headers["Set-Cookie"]
    for word in ("gateway_sign_in=", "HttpOnly", "SameSite=Lax", "Max-Age=600", "Path=/dashboard/sign-in"):
        assert word in kept
    return str(left.headers["Location"])


async def come_back(browser: aiohttp.ClientSession, answer: dict[str, str], **headers: str) -> Reply:
    reply: Reply = await look(browser, str(URL(BACK).with_query(answer)), headers=headers)
    return reply


async def signed_in(browser: aiohttp.ClientSession, issuer: Provider, groups: Any, user: str = "ann") -> Reply:
    return await come_back(browser, issuer.sign_in(await go(browser), user, groups=groups))
