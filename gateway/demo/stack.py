"""Builds the whole demo, in order of need, and takes it down again."""

import asyncio
import contextlib
import errno
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from aiohttp import web

from gateway.access.rules import api_keys as keys
from gateway.app import GatewayHandle, running
from gateway.config import Config, from_mapping
from gateway.demo import assets
from gateway.demo.page_server import PageServer
from gateway.domain.scopes import Scope
from gateway.http.route import Route
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.models.image import pillow

HOST = "127.0.0.1"
TEAMS = ("studio", "lab")
MODELS = {"text": "meta/meta-llama-3-8b-instruct", "image": "black-forest-labs/flux-schnell"}
_LAST_PORT = 65535
_SCOPES = ("read", "predict", "files", "tokens")
_GRACE_SECONDS = 1
_BUSY = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})


class DemoError(click.ClickException):
    """The demo cannot be started; the message says why and what to do."""


@dataclass(frozen=True)
class Demo:
    """A demo that runs."""

    page_url: str
    usage_url: str
    """The operators' page of the gateway."""
    origin: str
    """The gateway, without `/v1`: what the Python client is given."""
    base_url: str
    """The gateway, with `/v1`: what everything else is given."""
    keys: Mapping[str, str]
    """Each team's key."""
    has_npm_client: bool
    """Whether the page offers the npm client too."""


@asynccontextmanager
async def demo(port: int = 0) -> AsyncIterator[Demo]:
    """Run a demo: the gateway on `port`, the page on the next one or, if that is taken, on any. 0 takes any for both.

    Raise `DemoError` if it cannot be.
    """
    page_assets = await asyncio.to_thread(_load)
    issued = {team: keys.new_key(secrets.token_bytes).key for team in TEAMS}
    async with AsyncExitStack() as stack:
        folder = await stack.enter_async_context(_temporary_folder())
        simulator = await stack.enter_async_context(Simulator(SimulatorSettings(host=HOST)))
        listener = stack.enter_context(_page_socket(port))
        page_port = listener.getsockname()[1]
        page_url = f"http://{HOST}:{page_port}/"
        origins = (f"http://{HOST}:{page_port}", f"http://localhost:{page_port}")
        config = _config(port, simulator, folder, issued, origins)
        gateway = await stack.enter_async_context(_gateway(config, page_url))
        server = PageServer(
            assets=page_assets,
            page_origins=origins,
            gateway_origin=gateway.origin,
            image_origins=(gateway.origin, simulator.delivery_url),
            keys=issued,
            about={
                "base_url": gateway.base_url,
                "teams": list(TEAMS),
                "models": MODELS,
                "npm_client": assets.NPM_CLIENT in page_assets,
            },
        )
        await stack.enter_async_context(server.serving(listener))
        yield Demo(
            page_url=page_url,
            usage_url=f"{gateway.ops_url}/dashboard",
            origin=gateway.origin,
            base_url=gateway.base_url,
            keys=issued,
            has_npm_client=assets.NPM_CLIENT in page_assets,
        )


def _load() -> dict[str, assets.Asset]:
    try:
        pillow()
        return assets.load()
    except (RuntimeError, assets.BundleMissing) as exc:
        raise DemoError(str(exc)) from exc


@asynccontextmanager
async def _temporary_folder() -> AsyncIterator[Path]:
    folder = await asyncio.to_thread(tempfile.TemporaryDirectory, prefix="gateway-demo-", ignore_cleanup_errors=True)
    try:
        yield Path(folder.name)
    finally:
        await asyncio.to_thread(folder.cleanup)


def _page_socket(port: int) -> socket.socket:
    """Take the page's port before anything else is told of it."""
    wanted = port + 1 if 0 < port < _LAST_PORT else 0
    with contextlib.suppress(OSError):
        return socket.create_server((HOST, wanted))
    return socket.create_server((HOST, 0))


def _config(port: int, simulator: Simulator, folder: Path, issued: Mapping[str, str], origins: Sequence[str]) -> Config:
    environ = {"REPLICATE_API_TOKEN": simulator.token}
    teams = []
    for team, key in issued.items():
        variable = f"{team.upper()}_KEY"
        environ[variable] = key
        teams.append({"name": team, "scopes": list(_SCOPES), "origins": list(origins), "keys": [{"key_env": variable}]})
    data = {
        "server": {"host": HOST, "port": port, "shutdown_grace_seconds": _GRACE_SECONDS},
        "ops": {"host": HOST, "port": 0},
        "upstream": {"base_url": simulator.base_url},
        "store": {"url": f"sqlite:///{folder / 'gateway.db'}"},
        "outputs": {"url": str(folder / "outputs")},
        # Receivers to try it with are on this machine, as everything of the demo is.
        "webhooks": {"allow_http": True, "allow_private_addresses": True},
        "logs": {"level": "warning"},
        "teams": teams,
    }
    return from_mapping(data, environ)


@asynccontextmanager
async def _gateway(config: Config, page_url: str) -> AsyncIterator[GatewayHandle]:
    async def to_the_page(_: web.Request) -> web.Response:
        # Answered, not raised: the gateway makes problem documents of what aiohttp raises.
        return web.Response(status=302, headers={"Location": page_url})

    route = Route("GET", "/", "demo", Scope.READ, to_the_page)
    port = config.server.port
    async with AsyncExitStack() as stack:
        try:
            gateway = await stack.enter_async_context(running(config, routes=[route]))
        except OSError as exc:
            raise _trouble(exc, port) from exc
        yield gateway


def _trouble(problem: OSError, port: int) -> DemoError:
    other = "another one with --port, or any free one with --port 0"
    if problem.errno in _BUSY:
        return DemoError(f"Port {port} is in use; choose {other}.")
    if problem.errno in _FORBIDDEN:
        return DemoError(f"Port {port} may not be opened by you; choose {other}.")
    return DemoError(f"The gateway could not start on port {port}: {problem.strerror or problem}.")
