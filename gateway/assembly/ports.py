"""The two ports of a gateway, or those of a worker: it shares the one of callers, and serves operators on a socket."""

import asyncio
from pathlib import Path
from typing import Final

from aiohttp import web

from gateway.config import Config
from gateway.http.request import Handle
from gateway.http.server import Runner, listen, listen_on_socket

_OPS_GRACE_SECONDS: Final = 1.0


async def listen_for_callers(
    config: Config, app: web.Application, *, grace_seconds: float, handle: Handle | None = None
) -> tuple[Runner, int]:
    """Serve callers. Return the runner and the port. Raise `OSError` if that is not available."""
    server = config.server
    return await listen(
        app, server.host, server.port, grace_seconds=grace_seconds, handle=handle, reuse_port=server.reuse_port
    )


async def listen_for_operators(config: Config, app: web.Application, socket: Path | None) -> tuple[Runner, int]:
    """Serve operators: a worker on its socket. Return the runner and the port. Raise `OSError`."""
    ops = config.ops
    if socket is not None:
        return await listen_on_socket(app, socket, grace_seconds=_OPS_GRACE_SECONDS), ops.port
    return await listen(app, ops.host, ops.port, grace_seconds=_OPS_GRACE_SECONDS)


async def check_ports(config: Config, socket: Path | None) -> None:
    """Raise `OSError` if a port is not available, before anything of the gateway exists."""
    loop = asyncio.get_running_loop()
    wanted = [(config.server.host, config.server.port, config.server.reuse_port)]
    if socket is None:
        wanted.append((config.ops.host, config.ops.port, False))
    for host, port, is_shared in wanted:
        if port:
            server = await loop.create_server(
                asyncio.Protocol, host, port, reuse_port=is_shared or None, start_serving=False
            )
            server.close()


def shown_origin(host: str, port: int) -> str:
    """Return the URL at which a listener is reached on this machine."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"
