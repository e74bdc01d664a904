"""The programs of `examples/`, each against a gateway and the simulator."""

import asyncio
import contextlib
import io
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from PIL import Image

from gateway.simulator import Simulator
from gateway.simulator.models.image import paint
from tests.support.node import CLIENTS, run_script
from tests.support.ports import free_port
from tests.support.stack import Stack, start_gateway
from tests.support.tools import clean_environment, require_tool
from tests.support.upstream import assert_upstream_saw_no_key, version_of

EXAMPLES = Path(__file__).parents[2] / "examples"
PACKAGES = json.loads((CLIENTS / "package.json").read_text())["dependencies"]
pytestmark = [pytest.mark.node, pytest.mark.timeout(90)]


@pytest.fixture
def page_port() -> int:
    return free_port()


@pytest.fixture
async def gateway(upstream: Simulator, tmp_path: Path, page_port: int) -> AsyncIterator[Stack]:
    """A gateway whose team lists the page of the examples."""
    teams = {"alpha": {"origins": [f"http://127.0.0.1:{page_port}"]}}
    async with start_gateway(upstream, tmp_path, teams=teams) as stack:
        yield stack
        assert_upstream_saw_no_key(stack)


@pytest.fixture
def examples(clients: Path, tmp_path: Path) -> Path:
    """A copy of the examples, with the packages of the other npm tests."""
    folder = tmp_path / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("node_modules", "dist"))
    (tmp_path / "node_modules").symlink_to(clients / "node_modules")
    return folder


def environment(gateway: Stack, upstream: Simulator, **more: str) -> dict[str, str]:
    """What the README of the examples sets."""
    return clean_environment(
        GATEWAY_URL=gateway.base_url.removesuffix("/v1"),
        GATEWAY_KEY=gateway.keys["alpha"],
        GATEWAY_MODELS="meta/*,acme/upscale",
        IMAGE_MODEL=f"acme/upscale:{version_of(upstream, 'acme/upscale')}",
        **more,
    )


@asynccontextmanager
async def express(folder: Path, environ: dict[str, str], port: int) -> AsyncIterator[str]:
    """The server of the Express example."""
    process = await asyncio.create_subprocess_exec(
        require_tool("node"), "server.js", cwd=folder / "express", env=environ | {"PORT": str(port)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def run(command: list[str], folder: Path, environ: dict[str, str]) -> str:
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=folder, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def assert_token_of_the_user(gateway: Stack, token: str, origin: str) -> None:
    """It works in the team's pages only, and what it makes belongs to the user."""
    url = f"{gateway.base_url}/models/meta/meta-llama-3-8b-instruct/predictions"
    bearer = {"Authorization": f"Bearer {token}"}
    body = {"input": {"prompt": "hello", "max_tokens": 3}}
    async with aiohttp.ClientSession() as session:
        async with session.post(url, json=body, headers=bearer) as answer:
            assert answer.status == 403
        async with session.post(url, json=body, headers=bearer | {"Origin": origin, "Prefer": "wait"}) as answer:
            assert (answer.status, (await answer.json())["status"]) == (201, "succeeded")
    async with gateway.caller() as caller, caller.get("/gateway/usage?by=user") as answer:
        assert [row["user"] for row in (await answer.json())["rows"]] == ["u-42"]


CALL_ROUTE = """
const { POST } = await import(process.argv[1]);
const answer = await POST(new Request("http://app/api/gateway-token", { method: "POST" }));
console.log(JSON.stringify({ status: answer.status, body: await answer.json() }));
"""


async def test_next_js_route_handler_gives_a_token(
    gateway: Stack, upstream: Simulator, examples: Path, page_port: int
) -> None:
    """Called as Next.js calls it, with a web-standard request. Without a user it is a 401."""
    route = str(examples / "nextjs/app/api/gateway-token/route.js")
    command = [require_tool("node"), "--input-type=module", "-e", CALL_ROUTE, route]
    environ = environment(gateway, upstream)
    refused: Any = json.loads(await run(command, examples / "nextjs", environ))
    assert refused["status"] == 401
    given: Any = json.loads(await run(command, examples / "nextjs", environ | {"EXAMPLE_USER": "u-42"}))
    assert (given["status"], given["body"].keys()) == (200, {"token", "expires_at"})
    await assert_token_of_the_user(gateway, given["body"]["token"], f"http://127.0.0.1:{page_port}")


@pytest.mark.chromium
async def test_vite_page_streams_and_uploads_with_tokens_of_express(
    gateway: Stack, upstream: Simulator, examples: Path, page_port: int, tmp_path: Path
) -> None:
    """In Chromium: text, a picture from a file, and a new token when the first is about to expire."""
    environ = environment(gateway, upstream, EXAMPLE_USER="u-42")
    built = environ | {f"VITE_{name}": environ[name] for name in ("GATEWAY_URL", "IMAGE_MODEL")}
    vite = str(CLIENTS / "node_modules/vite/bin/vite.js")
    await run([require_tool("node"), vite, "build", "--logLevel", "warn"], examples / "vite", built)
    picture = tmp_path / "picture.png"
    picture.write_bytes(paint("a picture", 1, 24, 16))
    async with express(examples, environ, page_port) as address:
        assert address == f"http://127.0.0.1:{page_port}"
        async with aiohttp.ClientSession() as session, session.post(f"{address}/api/gateway-token") as answer:
            await assert_token_of_the_user(gateway, (await answer.json())["token"], address)
        given = {"executable": require_tool("chromium"), "address": address, "picture": str(picture)}
        outcome = await run_script(
            "examples.mjs", "visit", base_url=gateway.base_url, key=gateway.keys["alpha"], **given
        )
    assert outcome.error is None, outcome.error
    seen = outcome.result
    assert "three sleepy llamas" in seen["text"]
    assert "three sleepy llamas" in seen["later"]
    assert seen["image"] == 48
    assert (seen["before"], seen["after"]) == (1, 2)
    assert seen["complaints"] == []


async def test_file_is_sent_and_the_result_saved(gateway: Stack, upstream: Simulator, examples: Path) -> None:
    folder = examples / "image-with-file"
    (folder / "photo.png").write_bytes(paint("a photo", 2, 20, 10))
    said = await run([require_tool("node"), "enlarge.mjs", "photo.png"], folder, environment(gateway, upstream))
    assert said.strip() == "enlarged.png"
    with Image.open(io.BytesIO((folder / "enlarged.png").read_bytes())) as picture:
        assert picture.size == (40, 20)


@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/package.json")))
def test_packages_of_the_examples_are_those_of_the_tests(name: str) -> None:
    """What is tested is what a reader installs. Next.js only calls the handler, so it is not installed here."""
    wanted = json.loads((EXAMPLES / name / "package.json").read_text())
    packages = wanted["dependencies"] | wanted.get("devDependencies", {})
    tested = {package: version for package, version in packages.items() if package in PACKAGES}
    assert tested == {package: PACKAGES[package] for package in tested}
    assert packages.keys() - tested.keys() <= {"next", "react", "react-dom"}


def test_every_example_is_described() -> None:
    text = (EXAMPLES / "README.md").read_text()
    for folder in EXAMPLES.iterdir():
        if folder.is_dir():
            assert f"]({folder.name})" in text
