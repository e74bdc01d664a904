"""Fixtures of the client matrix: the stack, and the npm clients installed."""

import logging
import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.simulator import Simulator
from tests.support.demo import Started, build, started
from tests.support.fixtures import upstream
from tests.support.node import CLIENTS, Outcome, Play, install_clients, run_script
from tests.support.pages import Site, bundle_page, serve_site
from tests.support.ports import free_port
from tests.support.python_client import Python, python_client
from tests.support.stack import Stack, start_gateway
from tests.support.tools import absent, find_tool, require_tool
from tests.support.upstream import assert_upstream_saw_no_key, version_of

__all__ = ["upstream"]

_NOT_INSTALLED = pytest.StashKey[str | None]()


@pytest.fixture
async def gateway(upstream: Simulator, tmp_path: Path, a_quiet_gateway: None) -> AsyncIterator[Stack]:
    """A gateway before the simulator; afterwards no key of a caller may be found in what upstream received."""
    # Programs send no Origin, so their tokens are unbound.
    async with start_gateway(upstream, tmp_path, teams={"alpha": {"unbound_tokens": True}}) as stack:
        yield stack
        assert_upstream_saw_no_key(stack)


@pytest.fixture
def a_quiet_gateway(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a client does, and however upstream fails: the gateway has no error of its own to log."""
    yield
    records = [record for when in ("setup", "call", "teardown") for record in caplog.get_records(when)]
    said = [record.getMessage() for record in records if record.levelno >= logging.ERROR]
    assert said == []


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install the npm clients before the first test, so that no test's time is spent on it."""
    wanted = any("clients" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and not session.config.option.collectonly:
        session.config.stash[_NOT_INSTALLED] = install_clients()


@pytest.fixture(scope="session")
def clients(request: pytest.FixtureRequest) -> Path:
    """The folder of the npm clients, installed as the lock file says."""
    require_tool("node")
    require_tool("npm")
    if reason := request.config.stash[_NOT_INSTALLED]:
        absent(reason)
    return CLIENTS


@pytest.fixture(scope="session")
def bundle(clients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's script with the client in it, built once."""
    return bundle_page(clients, tmp_path_factory.mktemp("bundle") / "page.js")


@pytest.fixture
async def site(bundle: Path) -> AsyncIterator[Site]:
    """A server for the page, which has two names and so two origins."""
    async with serve_site(bundle) as site:
        yield site


@pytest.fixture
def play(clients: Path, gateway: Stack) -> Play:
    """Run a scenario: `await play("replicate.mjs", "run", ref=…)`, as team alpha unless `team` or `key` is given."""

    async def run(script: str, scenario: str, *, team: str = "alpha", **more: Any) -> Outcome:
        settings = {"base_url": gateway.base_url, "key": gateway.keys[team]} | more
        return await run_script(script, scenario, **settings)

    return run


@pytest.fixture
def replicate_js(play: Play) -> Play:
    """Run a scenario of npm `replicate`."""
    return partial(play, "replicate.mjs")


@pytest.fixture(params=["sync", "async"])
def is_async(request: pytest.FixtureRequest) -> bool:
    """Which of the two ways."""
    return request.param == "async"


@pytest.fixture
async def python(gateway: Stack, is_async: bool) -> AsyncIterator[Python]:
    """The client of team alpha, its base spelled as it wants it: without /v1."""
    client = python_client(gateway.keys["alpha"], gateway.origin, is_async=is_async)
    yield client
    await client.close()


@pytest.fixture
def storyteller(upstream: Simulator) -> str:
    """The version that streams text."""
    return version_of(upstream, "acme/storyteller")


@pytest.fixture
def slow(upstream: Simulator) -> str:
    """The version that takes its time."""
    return version_of(upstream, "acme/slow")


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A demo shared by tests that do not change it; without Node, it has no npm client."""
    has_node = os.environ.get("CI") or (find_tool("npm") and find_tool("node"))
    bundle = str(build()) if has_node else ""
    with started(free_port(5), tmp_path_factory.mktemp("demo"), GATEWAY_DEMO_BUNDLE=bundle) as running:
        yield running


@pytest.fixture(scope="session")
def demo_bundle() -> Path:
    """The npm client, bundled for the demo."""
    return build()
