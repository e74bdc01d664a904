"""`kill -9` at every step of a copy: no half object is ever served, and no byte is left without an owner."""

import asyncio
import contextlib
import hashlib
import os
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from gateway.access.rules.api_keys import new_key
from gateway.simulator import Fault, Simulator
from gateway.simulator.models.image import paint
from tests.support.crash_rounds import ROOT
from tests.support.polling import attempts
from tests.support.stack import Stack, start_gateway, start_upstream
from tests.support.system_clocks import AdvancingClock
from tests.support.upstream import version_of

LAKE = {"prompt": "a lake", "seed": 5, "width": 256, "height": 256}
PICTURE = paint("a lake", 5, 256, 256)
HOUR = 3600.0
POINTS = [
    (when, step, "1") for step in ("claim", "put", "keep") for when in ("before", "amid", "after")
]  # fmt: skip


@pytest.fixture
async def upstream() -> AsyncIterator[Simulator]:
    async with start_upstream() as simulator:
        yield simulator


async def killed_while_copying(upstream: Simulator, folder: Path, point: tuple[str, str, str]) -> str:
    """Have a picture painted by a gateway that dies at a point of its copy; return the key of its team."""
    key = new_key(secrets.token_bytes).key
    config = folder / "config.toml"
    config.write_text(
        f'[server]\nport = 0\n[ops]\nport = 0\n[upstream]\nbase_url = "{upstream.base_url}"\n'
        f'[store]\nurl = "sqlite:///{folder / "gateway.db"}"\n[outputs]\nurl = "{folder / "outputs"}"\n'
        '[[teams]]\nname = "alpha"\n[[teams.keys]]\nname = "default"\nkey_env = "KEY"\n'
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.crash_child", str(config), *point),
        cwd=ROOT,
        env={**os.environ, "REPLICATE_API_TOKEN": upstream.token, "KEY": key},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        origin = (await process.stdout.readline()).decode().split()[2].removesuffix(";")
        body = {"version": f"acme/painter:{version_of(upstream, 'acme/painter')}", "input": LAKE}
        headers = {"Authorization": f"Bearer {key}"}
        async with aiohttp.ClientSession(headers=headers) as session:
            with contextlib.suppress(aiohttp.ClientError):
                await (await session.post(f"{origin}/predictions", json=body)).read()
            assert await process.stdout.readline() == b"killed\n", "the step was never passed"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return key


def objects(folder: Path) -> list[Path]:
    """List every file that is there, half or whole."""
    return [path for path in (folder / "outputs").rglob("*") if path.is_file()]


async def metric(stack: Stack, name: str) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{stack.ops_url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(f"replicate_gateway_{name} "))


@pytest.mark.parametrize("point", POINTS, ids=" ".join)
async def test_interrupted_copy_is_made_at_the_next_start(
    upstream: Simulator, tmp_path: Path, point: tuple[str, str, str]
):
    """Upstream still has the file: it is copied after all, and two hours later served whole."""
    key = await killed_while_copying(upstream, tmp_path, point)
    for path in objects(tmp_path):
        if path.parent.name != "incoming":
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name, "half an object bears its name"
    clock = AdvancingClock(upstream)
    outputs = {"url": str(tmp_path / "outputs")}
    async with start_gateway(upstream, tmp_path, clock=clock, keys={"alpha": key}, outputs=outputs) as stack:
        async with stack.caller() as alpha:
            while True:
                body = (await (await alpha.get("/v1/predictions")).json())["results"][0]
                if body["status"] == "succeeded" and not await metric(stack, "outputs_pending"):
                    break
            clock.advance(2 * HOUR)
            (link,) = (await (await alpha.get(f"/v1/predictions/{body['id']}")).json())["output"]
            assert await (await alpha.get(link)).read() == PICTURE
        (kept,) = objects(tmp_path)
        assert kept.read_bytes() == PICTURE


@pytest.mark.parametrize("point", POINTS, ids=" ".join)
async def test_interrupted_copy_is_removed_when_upstream_lost_the_file(
    upstream: Simulator, tmp_path: Path, point: tuple[str, str, str]
):
    """The gateway comes back too late: partial files are deleted; a recorded copy is deleted with its cache entry."""
    key = await killed_while_copying(upstream, tmp_path, point)
    upstream.faults.add(Fault("output_missing"))
    clock = AdvancingClock(upstream)
    clock.advance(2 * HOUR)
    outputs = {"url": str(tmp_path / "outputs")}
    async with start_gateway(upstream, tmp_path, clock=clock, keys={"alpha": key}, outputs=outputs) as stack:
        assert [path for path in objects(tmp_path) if path.parent.name == "incoming"] == []
        async for _ in attempts():
            if not objects(tmp_path):
                break
            clock.advance(900)
        assert await metric(stack, "outputs_pending") == 0
