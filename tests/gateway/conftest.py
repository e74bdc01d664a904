"""Fixtures of the whole-gateway tests: all output is scanned for secrets, and no logged error is allowed."""

import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest

from gateway.simulator import Simulator
from gateway.store.urls import open_store
from tests.support.access_log import access_log
from tests.support.bad_input import MAX_BODY, MAX_UPLOAD
from tests.support.http_calls import PAGE, metrics_of
from tests.support.installation import TEAMS, Installation, install
from tests.support.issued_keys import Issuer
from tests.support.s3 import outputs_url, s3
from tests.support.secret_scanner import SCANNER, LogScanner, SecretScanner
from tests.support.stack import OpenGateway, Stack, start_gateway, start_upstream

__all__ = ["access_log", "outputs_url", "s3"]


class Elsewhere:
    """The simulator, with another address for the gateway to use."""

    def __init__(self, upstream: Simulator, base_url: str) -> None:
        self._upstream = upstream
        self.base_url = base_url

    def __getattr__(self, name: str) -> Any:
        return getattr(self._upstream, name)


@pytest.fixture(autouse=True)
def log_scanner() -> Iterator[LogScanner]:
    """Fail the test if an error is logged. A test that expects one clears `errors` itself."""
    SCANNER.clear()
    heard, root = LogScanner(), logging.getLogger()
    before = {name: logging.getLogger(name).level for name in ("", "asyncio", "aiohttp", "gateway")}
    root.addHandler(heard)
    for name in before:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield heard
    root.removeHandler(heard)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)
    assert not heard.errors, "\n".join(heard.errors)
    assert not SCANNER.found


@pytest.fixture
def secret_scanner(log_scanner: LogScanner) -> SecretScanner:
    """The scanner that searches for this test's secrets."""
    return SCANNER


@pytest.fixture
async def upstream(secret_scanner: SecretScanner) -> AsyncIterator[Simulator]:
    """A simulator at twenty times normal speed, with a fresh token."""
    async with start_upstream(max_body_logged=256 * 1024) as simulator:
        secret_scanner.add("the account's token", simulator.token)
        yield simulator


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for the store, in memory if possible: these tests do not need durable writes."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


@pytest.fixture
def open_gateway(upstream: Simulator, folder: Path, secret_scanner: SecretScanner) -> OpenGateway:
    """Start gateways in front of the simulator, or of `base_url`. Each is scanned for secrets when it closes."""

    @asynccontextmanager
    async def start(**overrides: Any) -> AsyncIterator[Stack]:
        base_url = overrides.pop("base_url", None)
        before = cast(Simulator, Elsewhere(upstream, base_url)) if base_url else upstream
        teams = overrides.pop("teams", {})
        teams["alpha"] = {"origins": [PAGE]} | teams.get("alpha", {})
        async with start_gateway(before, folder, teams=teams, **overrides) as stack:
            for name, key in stack.keys.items():
                secret_scanner.add(f"the key of {name}", key)
            yield stack
            if stack.config.ops.token is None:
                secret_scanner.scan("the metrics", (await metrics_of(stack)).encode())
            secret_scanner.scan_folder(folder)
        secret_scanner.scan_folder(folder)
        secret_scanner.scan_upstream_requests(upstream)

    return start


@pytest.fixture
async def gateway(open_gateway: OpenGateway) -> AsyncIterator[Stack]:
    """A gateway with the teams alpha (which lists an origin), beta and operator."""
    async with open_gateway() as stack:
        yield stack


@pytest.fixture
def installation(upstream: Simulator, tmp_path: Path, secret_scanner: SecretScanner) -> Installation:
    """A gateway process that the test starts and kills, with two teams."""
    installed = install(upstream, tmp_path, TEAMS)
    for team, key in installed.keys.items():
        secret_scanner.add(f"the key of {team}", key)
    return installed


@pytest.fixture
async def issuer(gateway: Stack, secret_scanner: SecretScanner) -> AsyncIterator[Issuer]:
    """A second hand on the store of a gateway that runs."""
    store = open_store(f"sqlite:///{gateway.database}")
    await store.open()
    yield Issuer(gateway, secret_scanner, store)
    await store.close()


@pytest.fixture
def guarded() -> dict[str, Any]:
    """An ops listener that asks for a token: what the stack knows as alpha's key is the operators' token too."""
    return {"ops": {"token_env": "KEY_ALPHA"}}


@pytest.fixture
async def small(open_gateway: OpenGateway) -> AsyncIterator[Stack]:
    """A gateway that takes little."""
    async with open_gateway(server={"max_body_bytes": MAX_BODY, "max_upload_bytes": MAX_UPLOAD}) as stack:
        yield stack
