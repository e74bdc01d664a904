"""The operators' listener without a token answers its own machine only, whatever name a browser was led to it by.

A page whose name is made to point at 127.0.0.1 (DNS rebinding) sends its own name as Host.
"""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from gateway.app import running
from gateway.http.ops.app import add_routes
from gateway.simulator import Simulator
from tests.support.hostile import long_unless
from tests.support.stack import Stack, stack_config

PROBES = {"/healthz", "/readyz"}


def ops_routes() -> list[tuple[str, str]]:
    """List every route of the listener, as it is registered."""
    app = web.Application()
    add_routes(app)
    found = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    return sorted(found)


HOSTS = ("attacker.example:9464", "localhost.attacker.example", "169.254.169.254")


def rows() -> list[Any]:
    """Make a test of each route but the probes, and of each host. Files of the page hold no data.

    `make test` runs one host for each route.
    """
    made = []
    guarded = [each for each in ops_routes() if each[1] not in PROBES and not each[1].startswith("/dashboard/")]
    for number, (method, path) in enumerate(guarded):
        for place, host in enumerate(HOSTS):
            marks = long_unless(number % len(HOSTS) == place)
            made.append(pytest.param(method, path, host, id=f"{method} {path} {host}", marks=marks))
    return made


@pytest.mark.parametrize(("method", "path", "host"), rows())
async def test_another_host_name_gets_nothing(gateway: Stack, method: str, path: str, host: str) -> None:
    """Neither metrics nor config, and nothing is deleted."""
    async with (
        aiohttp.ClientSession(gateway.ops_url) as session,
        session.request(method, path, headers={"Host": host}, allow_redirects=False) as response,
    ):
        assert response.status in (400, 403, 404, 421), (await response.text())[:100]


@pytest.mark.parametrize("host", ["127.0.0.1:9464", "localhost:9464", "[::1]:9464"])
async def test_the_machines_own_names_are_answered(gateway: Stack, host: str) -> None:
    """Prometheus on the same machine, and a tunnel, work."""
    async with (
        aiohttp.ClientSession(gateway.ops_url) as session,
        session.get("/metrics", headers={"Host": host}) as response,
    ):
        assert response.status == 200


async def test_sign_in_attempts_are_throttled(upstream: Simulator, folder: Path) -> None:
    """Nobody tries tokens by the thousand."""
    token = folder / "ops_token"
    token.write_text("a-token-of-some-length-0123456789")
    config, _ = await asyncio.to_thread(stack_config, upstream, folder, ops={"token_file": str(token)})
    async with running(config) as gateway, aiohttp.ClientSession(gateway.ops_url) as session:
        statuses = []
        for attempt in range(60):
            sent = session.post("/dashboard/sign-in", data={"secret": f"wrong-{attempt}"}, allow_redirects=False)
            async with sent as response:
                statuses.append(response.status)
        assert 429 in statuses
