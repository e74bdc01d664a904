"""The wheel and the source archive: everything is in them, and what they install serves, far from the checkout."""

import asyncio
import email
import json
import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import aiohttp
import pytest

from gateway.simulator import Simulator
from tests.support.constraints import pinned_versions
from tests.support.serve_command import ServeCommand
from tests.support.tools import clean_environment, require_tool
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


def _of_metadata(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        (found,) = (each for each in archive.namelist() if each.endswith(f".dist-info/{name}"))
        return archive.read(found)


def test_source_archive_builds_the_same_wheel(wheel: Path, released_wheel: Path):
    """What is released is what was tested: the record has a hash of each file."""
    records = [sorted(_of_metadata(path, "RECORD").splitlines()) for path in (released_wheel, wheel)]
    assert records[0] == records[1]


def test_source_archive_contains_no_tests_and_no_local_files(sdist: Path):
    """The package, its licence, and what a reader wants first."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in names if not name.startswith("gateway/")} == {
        ".gitignore", "CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "SECURITY.md", "config.example.toml",
        "hatch_build.py", "pyproject.toml",
    }  # fmt: skip


def test_wheel_has_its_licence(wheel: Path):
    """As text, and as an expression that scanners read."""
    assert _of_metadata(wheel, "licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    metadata = email.message_from_bytes(_of_metadata(wheel, "METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"


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
    pinned = pinned_versions()
    code = "from importlib.metadata import distributions as d; print(*(f'{x.name}=={x.version}' for x in d()))"
    found = subprocess.run([environment / "bin" / "python", "-c", code], check=True, capture_output=True, text=True)
    for each in found.stdout.split():
        name, _, version = each.partition("==")
        name = re.sub(r"[-_.]+", "-", name).lower()
        assert name == "replicate-gateway" or pinned.get(name) == version, each


def test_bill_of_materials_lists_what_is_installed(environment: Path):
    """As `make sbom` makes it: each package with its version, and the licence of most."""
    # The tool's check of its own output against the schema takes longer than everything else.
    command = [require_tool("cyclonedx-py"), "environment", "--no-validate", "--output-reproducible", "--of", "JSON"]
    done = subprocess.run([*command, environment / "bin/python"], check=True, capture_output=True, text=True)
    bill = json.loads(done.stdout)
    assert bill["bomFormat"] == "CycloneDX"
    found = {each["name"].lower().replace("_", "-"): each for each in bill["components"]}
    assert {"replicate-gateway", "aiohttp", "opentelemetry-sdk", "pydantic-core"} <= found.keys()
    assert found["aiohttp"]["version"] == pinned_versions()["aiohttp"]
    assert found["replicate-gateway"]["licenses"] == [{"license": {"acknowledgement": "declared", "id": "Apache-2.0"}}]
