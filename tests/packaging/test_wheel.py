"""The wheel: everything is in it, and what it installs serves, far from the checkout."""

import asyncio
import re
import subprocess
import zipfile
from pathlib import Path

import aiohttp
import pytest

from gateway.simulator import Simulator
from tests.support.serve_command import ServeCommand
from tests.support.tools import clean_environment
from tests.support.upstream import version_of

ROOT = Path(__file__).parents[2]
# The packages are fetched and put into a fresh environment by the first of these tests.
pytestmark = pytest.mark.timeout(300)


def test_wheel_contains_every_package_file(wheel: Path):
    """SQL, migrations, the demo's page: a missing file is noticed only when it is needed."""
    listed = subprocess.run(["git", "ls-files", "gateway"], cwd=ROOT, check=True, capture_output=True, text=True)
    wanted = {name for name in listed.stdout.split() if (ROOT / name).exists()}
    assert {Path(name).suffix for name in wanted} >= {".py", ".sql", ".html", ".js", ".css"}
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


def test_wheel_contains_nothing_else(wheel: Path):
    """No tests, no benches, no local config."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"gateway"}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout")
def test_wheel_records_the_commit_and_the_checkout_stays_as_it_is(wheel: Path):
    """`gateway --version` shows it, without a call of git."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    recorded = zipfile.ZipFile(wheel).read("gateway/commit.txt").decode().strip()
    assert len(recorded.removesuffix("-dirty")) >= 12
    assert head.startswith(recorded.removesuffix("-dirty"))
    assert not (ROOT / "gateway/commit.txt").exists()


async def test_installed_gateway_serves(environment: Path, upstream: Simulator, tmp_path: Path):
    """A prediction is made, kept in a database, and the image's probe passes."""
    program = str(environment / "bin" / "gateway")
    installed = ServeCommand(tmp_path, upstream.base_url, upstream.token, command=[program], path="")
    async with installed.serving() as gateway, installed.caller(gateway.origin) as alpha:
        body = {"version": version_of(upstream, "acme/storyteller"), "input": {"prompt": "a"}}
        async with alpha.post("/v1/predictions", json=body, headers={"Prefer": "wait"}) as answer:
            assert (answer.status, (await answer.json())["status"]) == (201, "succeeded")
        probe = await asyncio.create_subprocess_exec(program, "check", "--health", f"{gateway.origin}/healthz")
        assert await probe.wait() == 0


async def test_installed_demo_runs(environment: Path, tmp_path: Path):
    """The page and the simulator are included."""
    process = await asyncio.create_subprocess_exec(
        environment / "bin" / "gateway", "demo", "--port", "0",
        env=clean_environment(PYTHONUNBUFFERED="1"), cwd=tmp_path, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = ""
        while (found := re.search(r"http://127\.0\.0\.1:\d+/(?=\s)", said)) is None:
            line = await process.stdout.readline()
            assert line, said
            said += line.decode()
        async with aiohttp.ClientSession() as session, session.get(found[0]) as page:
            assert (page.status, page.content_type) == (200, "text/html")
    finally:
        process.terminate()
        await process.wait()


def test_installed_versions_are_the_tested_ones(environment: Path):
    """Every package has the version of constraints.txt: two images of one commit are alike."""
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[re.sub(r"[-_.]+", "-", name).lower()] = version
    code = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    found = subprocess.run([environment / "bin" / "python", "-c", code], check=True, capture_output=True, text=True)
    for each in found.stdout.split():
        name, _, version = each.partition("==")
        name = re.sub(r"[-_.]+", "-", name).lower()
        assert name == "replicate-gateway" or pinned.get(name) == version, each
