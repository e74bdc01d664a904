"""Pages in a real Chromium: a server for them that has two names, a script with npm `replicate` in it, a visit."""

import asyncio
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.support.node import run_script
from tests.support.polling import until
from tests.support.tools import clean_environment, require_tool

_PAGE = '<!doctype html><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>'


@dataclass
class Site:
    """Where the page is: at an origin that the team lists, and at another that it does not."""

    listed: str
    unlisted: str
    notes: Counter[str] = field(default_factory=Counter)
    """What pages have reported, by a request to `/note/WORD` of their own origin."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """When set, a page that asks for `/hold` gets its answer."""

    async def reported(self, word: str) -> None:
        """Wait until a page has reported something."""
        await until(lambda: self.notes[word])


@dataclass(frozen=True)
class Seen:
    """What came of a visit."""

    results: list[dict[str, Any]]
    texts: list[str]
    pictures: int
    complaints: list[str]
    requests: list[dict[str, Any]]

    @property
    def preflights(self) -> list[dict[str, Any]]:
        """The OPTIONS requests that the browser sent by itself."""
        return [each for each in self.requests if each["method"] == "OPTIONS"]


def bundle_page(clients: Path, to: Path, script: Path | None = None) -> Path:
    """Build the page's script with the client in it, as a frontend's build would; another script if one is named."""
    subprocess.run(
        [require_tool("node"), str(clients / "bundle.mjs"), str(to), *([str(script)] if script else [])],
        cwd=clients,
        env=clean_environment(),
        check=True,
        capture_output=True,
    )
    return to


@asynccontextmanager
async def serve_site(script: Path) -> AsyncIterator[Site]:
    """Serve a page with a script, under two names and so two origins."""
    site = Site("", "")

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=_PAGE, content_type="text/html")

    async def code(_: web.Request) -> web.Response:
        return web.Response(body=script.read_bytes(), content_type="text/javascript", charset="utf-8")

    async def note(request: web.Request) -> web.Response:
        site.notes[request.match_info["word"]] += 1
        return web.Response()

    async def hold(_: web.Request) -> web.Response:
        await site.released.wait()
        return web.Response()

    app = web.Application()
    app.add_routes(
        [web.get("/", page), web.get("/page.js", code), web.get("/note/{word}", note), web.get("/hold", hold)]
    )
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    site.listed, site.unlisted = f"http://127.0.0.1:{port}", f"http://localhost:{port}"
    try:
        yield site
    finally:
        await runner.cleanup()


async def visit_page(
    address: str, scenarios: Sequence[tuple[str, dict[str, Any]]], *, base_url: str, key: str, profile: Path
) -> Seen:
    """Open a page in Chromium and run scenarios of its script, one after the other."""
    done = await run_script(
        "browser.mjs",
        "open",
        base_url=base_url,
        key=key,
        executable=require_tool("chromium"),
        profile=str(profile),
        page=f"{address}/",
        scenarios=list(scenarios),
    )
    assert done.error is None, done.error
    seen = done.result
    return Seen(seen["results"], seen["seen"]["texts"], seen["seen"]["pictures"], seen["complaints"], seen["requests"])
