"""`gateway check --health`: whether a gateway that serves is alive, for images that have no curl."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import click

if TYPE_CHECKING:
    from gateway.config import Config

OWN_LISTENER: Final = "-"
_DEADLINE_SECONDS: Final = 4
_ALL: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what listens on all is reached by loopback


def probe_url(config: "Config") -> str:
    """Return where the gateway of a config answers probes."""
    host, port = _ALL.get(config.server.host, config.server.host), config.server.port
    if not port:
        raise click.UsageError("server.port is 0, so any port may have been taken: give --health URL")
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/healthz"


def ask_health(url: str) -> None:
    """Ask, and end the command with 1 unless the answer is 200. No proxy is asked."""
    from http.client import HTTPConnection, HTTPException

    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise click.UsageError("--health takes a URL of the form http://host:port/path")
    connection = HTTPConnection(parts.hostname, parts.port or 80, timeout=_DEADLINE_SECONDS)
    try:
        connection.request("GET", parts.path or "/healthz")
        status = connection.getresponse().status
    except (OSError, HTTPException) as problem:
        raise click.ClickException(f"{parts.netloc} does not answer: {problem or type(problem).__name__}") from None
    finally:
        connection.close()
    if status != 200:
        raise click.ClickException(f"{parts.netloc}{parts.path} answered {status}")
    click.echo("ok")
