"""`gateway check --health`: a health probe for container images without curl."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from gateway.config import Config

OWN_LISTENER: Final = "-"
_DEADLINE_SECONDS: Final = 4
_ALL: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a listener on all addresses is reachable by loopback


def probe_url(config: "Config") -> str:
    """Return the URL of `/healthz` on the public listener of a config."""
    host, port = _ALL.get(config.server.host, config.server.host), config.server.port
    if not port:
        raise click.UsageError("server.port is 0, so the port is unknown: use --health URL")
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/healthz"


def probe_health(url: str) -> None:
    """Send the probe without a proxy. Raise `ClickException` unless the response is 200."""
    from http.client import HTTPConnection, HTTPException

    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise click.UsageError("--health expects a URL such as http://host:port/path")
    connection = HTTPConnection(parts.hostname, parts.port or 80, timeout=_DEADLINE_SECONDS)
    try:
        connection.request("GET", parts.path or "/healthz")
        status = connection.getresponse().status
    except (OSError, HTTPException) as problem:
        raise click.ClickException(f"{parts.netloc} does not respond: {problem or type(problem).__name__}") from None
    finally:
        connection.close()
    if status != 200:
        raise click.ClickException(f"{parts.netloc}{parts.path} responded with {status}")
    click.echo("ok")
