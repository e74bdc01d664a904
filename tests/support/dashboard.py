"""Visitors of the usage page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp

from tests.support.session_calls import ask
from tests.support.stack import Stack

OURS = {"Sec-Fetch-Site": "same-origin"}


@asynccontextmanager
async def visitor(stack: Stack, **headers: str) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a browser of sorts: it keeps cookies, and goes nowhere by itself."""
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(stack.ops_url, headers=headers, cookie_jar=jar) as session:
        yield session


async def look(session: aiohttp.ClientSession, path: str = "/dashboard", **more: Any) -> Any:
    return await ask(session, "GET", path, allow_redirects=False, **more)


async def sign_in(session: aiohttp.ClientSession, secret: str, **headers: str) -> Any:
    given = {"data": {"secret": secret}, "headers": headers or OURS, "allow_redirects": False}
    return await ask(session, "POST", "/dashboard/sign-in", **given)
