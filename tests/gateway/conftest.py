"""The stack of the edge tests, wrapped in canaries: what leaves the gateway is searched, and no crash is missed."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest

from gateway.simulator import Simulator
from tests.support.canary import CANARIES, Canaries, Listener
from tests.support.installation import Installation, install
from tests.support.stack import Stack, start_gateway, start_upstream
from tests.support.wire import PAGE, metrics_of

TEAMS = ("alpha", "beta")

OpenGateway = Callable[..., AbstractAsyncContextManager[Stack]]


class Elsewhere:
    """The simulator, but for the address that the gateway is given."""

    def __init__(self, upstream: Simulator, base_url: str) -> None:
        self._upstream = upstream
        self.base_url = base_url

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upstream, name)


@pytest.fixture(autouse=True)
def listener() -> Iterator[Listener]:
    """Hear all logs. A test that means something to be logged as an error clears `crashes` itself."""
    CANARIES.clear()
    heard, root = Listener(), logging.getLogger()
    before = {name: logging.getLogger(name).level for name in ("", "asyncio", "aiohttp", "gateway")}
    root.addHandler(heard)
    for name in before:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield heard
    root.removeHandler(heard)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)
    assert not heard.crashes, "\n".join(heard.crashes)
    assert not CANARIES.found


@pytest.fixture
def canaries(listener: Listener) -> Canaries:
    """The secrets that are searched for."""
    return CANARIES


@pytest.fixture
async def upstream(canaries: Canaries) -> AsyncIterator[Simulator]:
    """A simulator, twenty times as fast as life, with a fresh token."""
    async with start_upstream(max_body_logged=256 * 1024) as simulator:
        canaries.add("the account's token", simulator.token)
        yield simulator


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for the store, in memory where there is such a place: these tests have no power cuts to survive."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


@pytest.fixture
def open_gateway(upstream: Simulator, folder: Path, canaries: Canaries) -> OpenGateway:
    """Start gateways before the simulator, or before `base_url`. Each is searched for canaries when it is closed."""

    @asynccontextmanager
    async def start(**overrides: Any) -> AsyncIterator[Stack]:
        base_url = overrides.pop("base_url", None)
        before = cast(Simulator, Elsewhere(upstream, base_url)) if base_url else upstream
        teams = overrides.pop("teams", {})
        teams["alpha"] = {"origins": [PAGE]} | teams.get("alpha", {})
        async with start_gateway(before, folder, teams=teams, **overrides) as stack:
            for name, key in stack.keys.items():
                canaries.add(f"the key of {name}", key)
            yield stack
            if stack.config.ops.token is None:
                canaries.look_through("the metrics", (await metrics_of(stack)).encode())
            canaries.look_through_folder(folder)
        canaries.look_through_folder(folder)
        canaries.look_through_upstream(upstream)

    return start


@pytest.fixture
async def gateway(open_gateway: OpenGateway) -> AsyncIterator[Stack]:
    """A gateway with the teams alpha (which has a page) and beta, and an operator."""
    async with open_gateway() as stack:
        yield stack


@pytest.fixture
def installation(upstream: Simulator, tmp_path: Path, canaries: Canaries) -> Installation:
    """A gateway to be started and killed, with two teams."""
    installed = install(upstream, tmp_path, TEAMS)
    for team, key in installed.keys.items():
        canaries.add(f"the key of {team}", key)
    return installed
