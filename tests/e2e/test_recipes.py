"""What the README says, pasted: its JavaScript runs in Node and in a real Chromium, against a gateway."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.simulator import Simulator
from tests.support.doc_blocks import blocks, replaced
from tests.support.node import run_script
from tests.support.pages import Site, bundle_page, serve_site
from tests.support.polling import attempts, until
from tests.support.stack import Stack, start_gateway
from tests.support.tools import clean_environment, require_tool
from tests.support.upstream import assert_upstream_saw_no_key

pytestmark = [pytest.mark.node, pytest.mark.timeout(90)]

README = "README.md"
LOCAL = "http://127.0.0.1:8080"
PUBLIC = "https://gateway.example.com"


async def run_recipe(*command: str, folder: Path, **environ: str) -> str:
    """Run a command as a reader would; return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=clean_environment(**environ), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def mint(stack: Stack, folder: Path) -> str:
    """Run the recipe by which a server mints a token."""
    (recipe,) = blocks(README, "A web page", "sh")
    bash = require_tool("bash")
    require_tool("curl")
    line = replaced(recipe, {LOCAL: stack.origin})
    token: str = json.loads(await run_recipe(bash, "-c", line, folder=folder, GATEWAY_KEY=stack.keys["alpha"]))["token"]
    return token


async def test_javascript_example_runs_in_node(gateway: Stack, upstream: Simulator, clients: Path, tmp_path: Path):
    """As it is written, with the package of the same name installed."""
    (recipe,) = blocks(README, "JavaScript", "js")
    (tmp_path / "recipe.mjs").write_text(replaced(recipe, {LOCAL: gateway.origin}))
    (tmp_path / "node_modules").symlink_to(clients / "node_modules")
    printed = await run_recipe(require_tool("node"), "recipe.mjs", folder=tmp_path, GATEWAY_KEY=gateway.keys["alpha"])
    assert printed == "".join(upstream.predictions[0].output) + "\n"


class Interrupted:
    """A proxy that can lose its connections, and answer once as one does whose gateway restarts."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.refusals = 0
        self.refused = 0
        self._open: set[asyncio.Transport] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.refused < self.refusals:
            self.refused += 1
            return web.Response(status=502, text="<h1>Bad Gateway</h1>", content_type="text/html")
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(
                request.method, self.origin + request.path_qs, headers=request.headers, data=await request.read()
            ) as response,
        ):
            headers = {name: value for name, value in response.headers.items() if name != "Transfer-Encoding"}
            answer = web.StreamResponse(status=response.status, headers=headers)
            await answer.prepare(request)
            assert isinstance(request.transport, asyncio.Transport)
            self._open.add(request.transport)
            with contextlib.suppress(ConnectionError):
                async for chunk in response.content.iter_any():
                    await answer.write(chunk)
            self._open.discard(request.transport)
            return answer

    def interrupt(self) -> None:
        """Lose every connection; answer the next request with 502."""
        self.refusals += 1
        for transport in self._open:
            transport.abort()
        self._open.clear()


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A server for a page whose script is written by the test."""
    async with serve_site(tmp_path / "bundle.js") as site:
        yield site


@pytest.fixture
async def gateway(upstream: Simulator, tmp_path: Path, site: Site, a_quiet_gateway: None) -> AsyncIterator[Stack]:
    """A gateway whose team alpha has a page."""
    async with start_gateway(upstream, tmp_path, teams={"alpha": {"origins": [site.listed]}}) as stack:
        yield stack
        assert_upstream_saw_no_key(stack)


Watch = Callable[..., Any]


@pytest.fixture
def watch(gateway: Stack, site: Site, clients: Path, tmp_path: Path) -> Watch:
    """Put a recipe into a page and look at it: `await watch(recipe, base)` gives what stands on it in the end."""
    chromium = require_tool("chromium")

    async def look(recipe: str, origin: str) -> Any:
        token = await mint(gateway, tmp_path)
        source = tmp_path / "recipe.mjs"
        source.write_text(f"const token = {json.dumps(token)};\n{replaced(recipe, {PUBLIC: origin})}")
        await asyncio.to_thread(bundle_page, clients, tmp_path / "bundle.js", source)
        done = await run_script(
            "browser.mjs", "watch", base_url=gateway.base_url, key=gateway.keys["alpha"], executable=chromium,
            profile=str(tmp_path / "profile"), page=f"{site.listed}/",
        )  # fmt: skip
        assert done.error is None, done.error
        return done.result

    return look


async def ended(upstream: Simulator, site: Site, stack: Stack) -> None:
    """Wait until the run has ended and its stream has been read, then let the page go."""
    await until(lambda: upstream.predictions and upstream.predictions[0].terminal)
    async with aiohttp.ClientSession() as session:
        async for _ in attempts():
            async with session.get(f"{stack.ops_url}/metrics") as answer:
                metrics = await answer.text()
                if (
                    'http_requests_total{code="200",method="GET",route="streams.read"}' in metrics
                    and 'sse_streams{side="downstream"} 0.0' in metrics
                ):
                    break
    site.released.set()


@pytest.mark.chromium
@pytest.mark.parametrize("number", [0, 1], ids=["npm replicate", "EventSource"])
async def test_page_example_streams_onto_the_page(
    watch: Watch, upstream: Simulator, gateway: Stack, site: Site, number: int
):
    """With the token that the example before it mints: the model's words appear on the page, and the console is
    clean.
    """
    recipe = blocks(README, "A web page", "js")[number]
    recipe = replaced(recipe, {'prompt: "Write a haiku"': 'prompt: "Write a haiku", duration: 20'})
    seen, _ = await asyncio.gather(watch(recipe, gateway.origin), ended(upstream, site, gateway))
    assert seen["text"] == "".join(upstream.predictions[0].output)
    assert seen["complaints"] == []
    assert len(upstream.predictions) == 1


@pytest.mark.chromium
async def test_page_example_survives_a_proxy_error(watch: Watch, upstream: Simulator, gateway: Stack, site: Site):
    """A lost connection, and a 502 on reconnecting, at which EventSource gives up: no word is lost."""
    (_, recipe) = blocks(README, "A web page", "js")
    # Chromium comes back after three seconds, is refused, and the recipe comes back three seconds later.
    recipe = replaced(recipe, {'prompt: "Write a haiku"': 'prompt: "Write a haiku", duration: 240, max_tokens: 40'})
    proxy = Interrupted(gateway.origin)
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", proxy.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def trouble() -> None:
        await until(lambda: upstream.predictions and len(upstream.predictions[0].output or ()) > 4)
        proxy.interrupt()
        await until(lambda: proxy.refused)
        assert not upstream.predictions[0].terminal
        await ended(upstream, site, gateway)

    try:
        seen, _ = await asyncio.gather(watch(recipe, f"http://127.0.0.1:{runner.addresses[0][1]}"), trouble())
    finally:
        await runner.cleanup()
    assert seen["text"] == "".join(upstream.predictions[0].output)
    assert sum("last_event_id=" in each["url"] for each in seen["requests"]) == 1
