"""A gateway that runs with the README's own config, started by the README's own commands, and a shell beside it."""

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway.simulator import Simulator
from tests.support.doc_blocks import blocks, replaced
from tests.support.node import run_script
from tests.support.pages import Site, bundle_page
from tests.support.polling import attempts, until
from tests.support.ports import free_port
from tests.support.tools import clean_environment, require_tool

README = "README.md"
RUN = "Run it against Replicate"
LOCAL = "http://127.0.0.1:8080"
OPS = "http://127.0.0.1:9464"
ORIGIN = "https://app.example.com"
TOKEN = "r8_…"
KEY = "rgw_…"
SERVE = "gateway serve\n"


@dataclass
class ReadmeGateway:
    """A gateway that runs as the README says, in a folder of its own."""

    upstream: Simulator
    folder: Path
    origin: str
    ops_url: str
    page: str
    """The origin that stands in the config in place of the README's example."""
    key: str = ""
    said: str = ""
    """What the commands before `gateway serve` printed."""
    process: asyncio.subprocess.Process | None = None
    places: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.places = {LOCAL: self.origin, OPS: self.ops_url, ORIGIN: self.page, TOKEN: self.upstream.token}

    def here(self, recipe: str, **more: str) -> str:
        """Put this gateway's addresses, page and token in the place of the recipe's own. `more` has to occur in it."""
        for old, new in (self.places | ({KEY: self.key} if self.key else {})).items():
            recipe = recipe.replace(old, new)
        return replaced(recipe, more)

    async def shell(self, script: str, **environ: str) -> str:
        """Run lines of a recipe as a reader would, in bash, and return what they print. Fail if one of them fails."""
        require_tool("curl")
        command = [require_tool("bash"), "-euo", "pipefail", "-c", script]
        return await run_recipe(*command, folder=self.folder, **self.environ(**environ))

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of a reader's shell: the gateway on the path, and the key."""
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        return (
            {"PATH": path, "REPLICATE_API_TOKEN": self.upstream.token}
            | ({"GATEWAY_KEY": self.key} if self.key else {})
            | more
        )

    def assert_upstream_saw_no_key(self) -> None:
        """Fail if the key is in any request that the API received, or one came without the account's token."""
        for seen in self.upstream.requests:
            if seen.origin == "api":
                assert seen.headers.get("authorization") == f"Bearer {self.upstream.token}", seen.operation
                assert self.key not in "\n".join((seen.path, seen.query, seen.body, *seen.headers.values()))


async def run_recipe(*command: str, folder: Path, **environ: str) -> str:
    """Run a command in a folder; return what it printed. Fail with its complaints if it fails."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=clean_environment(**environ), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == 0, out.decode()[-2000:] + err.decode()[-2000:]
    return out.decode()


def config_text(gateway: ReadmeGateway) -> str:
    """Return the README's config for this machine: before the simulator, and on free ports."""
    (config,) = blocks(README, RUN, "toml")
    port, ops_port = (url.rpartition(":")[2] for url in (gateway.origin, gateway.ops_url))
    return (
        gateway.here(replaced(config, {"[server]\n": f"[server]\nport = {port}\n"}))
        + f'[ops]\nport = {ops_port}\n[upstream]\nbase_url = "{gateway.upstream.base_url}"\n'
    )


@asynccontextmanager
async def serve_readme(upstream: Simulator, folder: Path, page: str = ORIGIN) -> AsyncIterator[ReadmeGateway]:
    """Do what "Run it against Replicate" says, before the simulator. `page` is the origin of the team's web page."""
    gateway = ReadmeGateway(
        upstream, folder, f"http://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}", page
    )
    (folder / "config.toml").write_text(config_text(gateway))
    # The commands are on the path already, so entering the environment has nothing to do.
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    start = gateway.here(blocks(README, RUN, "sh")[1])
    assert start.endswith(f"\n{SERVE}")
    gateway.said = await gateway.shell(start.removesuffix(SERVE))
    gateway.key = gateway.said.split()[-1]
    async with serving(gateway):
        yield gateway
    gateway.assert_upstream_saw_no_key()


@asynccontextmanager
async def serving(gateway: ReadmeGateway) -> AsyncIterator[None]:
    """Run `gateway serve` until it answers, and kill it afterwards. Fail if it logged an error."""
    output = gateway.folder / "serve.log"
    with output.open("wb") as log:
        process = gateway.process = await asyncio.create_subprocess_exec(
            require_tool("bash"), "-c", f"exec {SERVE}", cwd=gateway.folder,
            env=clean_environment(**gateway.environ()), stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        async with aiohttp.ClientSession() as session:
            async for _ in attempts():
                assert process.returncode is None, output.read_text()[-2000:]
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{gateway.origin}/healthz"):
                        break
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    complaints = re.findall(r"^\S+Z (?:ERROR|CRITICAL).*", output.read_text(), re.MULTILINE)
    assert complaints == []


async def run_in_page(
    gateway: ReadmeGateway, site: Site, clients: Path, script: str, origin: str | None = None
) -> dict[str, Any]:
    """Put a recipe into a web page, with a token that the README's recipe requests; return what stands on the page.

    `origin` is where the page finds the gateway, if something stands before it. The page stays until it is released.
    """
    (recipe,) = blocks(README, "From a web page", "sh")
    token = json.loads(await gateway.shell(gateway.here(recipe)))["token"]
    source = gateway.folder / "recipe.mjs"
    script = script.replace(LOCAL, origin or gateway.origin)
    source.write_text(f"const token = {json.dumps(token)};\n{script}")
    await asyncio.to_thread(bundle_page, clients, gateway.folder / "bundle.js", source)
    done = await run_script(
        "browser.mjs", "watch", base_url=f"{gateway.origin}/v1", key=gateway.key,
        executable=require_tool("chromium"), profile=str(gateway.folder / "profile"), page=f"{site.listed}/",
    )  # fmt: skip
    assert done.error is None, done.error
    seen: dict[str, Any] = done.result
    return seen


async def release_when_read(gateway: ReadmeGateway, site: Site) -> None:
    """Wait until the run has ended and its stream has been read, then let the page go."""
    await until(lambda: gateway.upstream.predictions and gateway.upstream.predictions[0].terminal)
    async with aiohttp.ClientSession() as session:
        async for _ in attempts():
            async with session.get(f"{gateway.ops_url}/metrics") as answer:
                metrics = await answer.text()
            if (
                re.search(r'http_requests_total\{code="200",method="GET",route="streams.read"\} [1-9]', metrics)
                and 'sse_streams{side="downstream"} 0.0' in metrics
            ):
                break
    site.released.set()
