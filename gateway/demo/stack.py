"""Start and stop the demo: simulator, gateway and page."""

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
    """The demo cannot start; the message says why and what to do."""


@dataclass(frozen=True)
class Demo:
    """A running demo."""

    page_url: str
    usage_url: str
    """URL of the usage page."""
    origin: str
    """Base URL of the gateway without `/v1`, for the Python client."""
    base_url: str
    """Base URL of the gateway with `/v1`, for other clients."""
    keys: Mapping[str, str]
    """Key by team."""
    has_npm_client: bool
    """Whether the page can use the npm client."""


@asynccontextmanager
async def demo(port: int = 0) -> AsyncIterator[Demo]:
    """Run a demo: the gateway on `port`, the page on the next port or, if that is in use, on a free one.

    With port 0, both use free ports. Raise `DemoError` if the demo cannot start.
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
    """Open the page's port, because the other parts need its number."""
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
        # Receivers for trying webhooks are on this machine.
        "webhooks": {"allow_http": True, "allow_private_addresses": True},
        "logs": {"level": "warning"},
        "teams": teams,
    }
    return from_mapping(data, environ)


@asynccontextmanager
async def _gateway(config: Config, page_url: str) -> AsyncIterator[GatewayHandle]:
    async def redirect_to_page(_: web.Request) -> web.Response:
        # Returned, not raised: the gateway turns aiohttp's exceptions into problem documents.
        return web.Response(status=302, headers={"Location": page_url})

    route = Route("GET", "/", "demo", Scope.READ, redirect_to_page)
    port = config.server.port
    async with AsyncExitStack() as stack:
        try:
            gateway = await stack.enter_async_context(running(config, routes=[route]))
        except OSError as exc:
            raise _start_error(exc, port) from exc
        yield gateway


def _start_error(problem: OSError, port: int) -> DemoError:
    advice = "choose another with --port N (make demo PORT=N), or a free one with --port 0"
    if problem.errno in _BUSY:
        return DemoError(f"Port {port} is in use; {advice}.")
    if problem.errno in _FORBIDDEN:
        return DemoError(f"No permission to open port {port}; {advice}.")
    return DemoError(f"The gateway could not start on port {port}: {problem.strerror or problem}.")
