"""Visitors of the console."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html.parser import HTMLParser
from typing import Any

import aiohttp

from tests.support.session_calls import ask
from tests.support.stack import Stack

OURS = {"Sec-Fetch-Site": "same-origin"}


class Tables(HTMLParser):
    """The rows of each table of a page, and its tiles. What has a title stands for what is shown shortened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: dict[str, list[list[str]]] = {}
        self.tiles: dict[str, str] = {}
        self._body = self._cell = self._term = ""
        self._in: str | None = None
        self._titled: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tbody":
            self._body = dict(attrs).get("id") or ""
            self.rows[self._body] = []
        elif tag == "tr" and self._body:
            self.rows[self._body].append([])
        elif tag in ("td", "th", "dt", "dd"):
            self._in, self._cell = tag, ""
        elif tag in ("data", "span") and (title := dict(attrs).get("title")):
            self._cell += title
            self._titled = tag

    def handle_data(self, data: str) -> None:
        if self._titled is None:
            self._cell += data

    def handle_endtag(self, tag: str) -> None:
        if tag == self._titled:
            self._titled = None
        text = re.sub(r"\s+", " ", self._cell).strip()
        if tag == "tbody":
            self._body = ""
        elif tag in ("td", "th") and self._body and self._in:
            self.rows[self._body][-1].append(text)
        elif tag == "dt":
            self._term = text
        elif tag == "dd":
            self.tiles[self._term] = text


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


def token_of(page: str) -> str:
    """Return what the forms of a page send back."""
    found = re.search(r'name="form_token" value="([0-9a-f]+)"', page)
    assert found is not None
    return found[1]
