"""Start and stop the demo: simulator, gateway and page."""

import asyncio
import contextlib
import errno
import socket
import tempfile
import tomllib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from aiohttp import web

from gateway.app import GatewayHandle, running
from gateway.config import Config, ConfigError, from_mapping
from gateway.demo import assets, setup
from gateway.demo.page_server import PRELOAD, PageServer
from gateway.domain.scopes import Scope
from gateway.http.route import Route
from gateway.simulator import Simulator, SimulatorSettings
from gateway.simulator.models.image import pillow

HOST = "127.0.0.1"
TEAMS = ("studio", "lab")
"""The teams that the page offers."""
MODELS = {"text": "meta/meta-llama-3-8b-instruct", "image": "black-forest-labs/flux-schnell"}
EXTRA_MODELS = {"failing": "acme/fail", "upscale": "acme/upscale"}
"""Models of the page's scenarios; they are run by version."""
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
    """URL of the console."""
    origin: str
    """Base URL of the gateway without `/v1`, for the Python client."""
    base_url: str
    """Base URL of the gateway with `/v1`, for other clients."""
    keys: Mapping[str, str]
    """Key by team."""
    config_file: Path
    """The gateway's config, for commands such as `gateway keys list`."""
    is_kept: bool
    """Whether keys and data are still there at the next start."""
    has_npm_client: bool
    """Whether the page can use the npm client."""


@asynccontextmanager
async def demo(port: int = 0, *, data: Path | None = None, origins: Sequence[str] = ()) -> AsyncIterator[Demo]:
    """Run a demo: the gateway on `port`, page, console and simulator on the next ports, or on free ones.

    With port 0, all use free ports. `data` keeps config, keys and database, else they are temporary. Web pages at
    `origins` may call the gateway too. Raise `DemoError` if the demo cannot start.
    """
    page_assets = await asyncio.to_thread(_load)
    async with AsyncExitStack() as stack:
        if data is None:
            folder = await stack.enter_async_context(_temporary_folder())
        else:
            folder = data
        issued = await asyncio.to_thread(_keys, folder)
        ports = setup.choose_ports(port, HOST)
        settings = SimulatorSettings(host=HOST, port=ports.simulator, delivery_port=ports.delivery)
        simulator = await stack.enter_async_context(Simulator(settings))
        listener = stack.enter_context(_page_socket(ports.page))
        page_port = listener.getsockname()[1]
        page_url = f"http://{HOST}:{page_port}/"
        page_origins = (f"http://{HOST}:{page_port}", f"http://localhost:{page_port}")
        place = setup.Place(folder, port, ports.usage, (*page_origins, *setup.development_origins(), *origins))
        config, config_file = await asyncio.to_thread(_config, place, simulator, issued)
        gateway = await stack.enter_async_context(_gateway(config, page_url))
        usage_url = f"{gateway.ops_url}/dashboard"
        server = PageServer(
            assets=page_assets,
            page_origins=page_origins,
            gateway_origin=gateway.origin,
            image_origins=(gateway.origin, simulator.delivery_url),
            keys=issued,
            about={
                "base_url": gateway.base_url,
                "usage_url": usage_url,
                "teams": list(TEAMS),
                "poor_team": setup.POOR_TEAM,
                "models": MODELS | EXTRA_MODELS,
                "versions": {name: _version(simulator, model) for name, model in EXTRA_MODELS.items()},
                "npm_client": assets.NPM_CLIENT in page_assets,
                "preload": PRELOAD,
            },
        )
        await stack.enter_async_context(server.serving(listener))
        yield Demo(
            page_url=page_url,
            usage_url=usage_url,
            origin=gateway.origin,
            base_url=gateway.base_url,
            keys={team: issued[team] for team in TEAMS},
            config_file=config_file,
            is_kept=data is not None,
            has_npm_client=assets.NPM_CLIENT in page_assets,
        )


def _version(simulator: Simulator, model: str) -> str:
    latest = simulator.world.registry.models[model].latest
    assert latest is not None
    return latest.id


def _keys(folder: Path) -> dict[str, str]:
    try:
        return setup.load_keys(folder, (*TEAMS, setup.POOR_TEAM))
    except (OSError, ValueError) as exc:
        raise DemoError(f"{folder} cannot hold the demo's data: {exc}") from exc


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
    with contextlib.suppress(OSError):
        return socket.create_server((HOST, port))
    return socket.create_server((HOST, 0))


def _config(place: setup.Place, simulator: Simulator, issued: Mapping[str, str]) -> tuple[Config, Path]:
    """Write the config, so that commands can use it, and load it without the environment's overrides."""
    text = setup.config_text(place, simulator.base_url, HOST, issued)
    path = place.folder / "config.toml"
    token_file = place.folder / setup.TOKEN_FILE
    token_file.touch(mode=0o600)
    token_file.write_text(simulator.token)
    path.write_text(text)
    try:
        return from_mapping(tomllib.loads(text), {}, file=str(path), text=text), path
    except ConfigError as exc:
        raise DemoError(str(exc)) from exc


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
