"""Helpers of all commands: load the config, run the event loop, report errors as one sentence without a traceback."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from gateway.config import Config, Team
    from gateway.store.interface import Store

T = TypeVar("T")

CONFIG_OPTION = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Config file. Default: $GATEWAY_CONFIG, else ./config.toml.",
)


def config_file(path: Path | None) -> Path | None:
    """Return the value of `--config` after the command, else of the one before it."""
    context = click.get_current_context()
    named: Path | None = context.find_root().params.get("config_path")
    return path or named


def load_config(path: Path | None, *, serving: bool = False) -> "Config":
    """Load the config, or report every problem and exit with 1. With `serving=False`, secrets may be missing."""
    from gateway.config import ConfigError, load

    try:
        return load(config_file(path), os.environ, serving=serving)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        if len(error.problems) > 1:
            click.echo(f"{len(error.problems)} problems found; nothing was done.", err=True)
        raise click.exceptions.Exit(1) from None


def known_team(config: "Config", name: str) -> "Team":
    """Return the team of that name. Raise `ClickException` with the known names if there is none."""
    team = config.team(name)
    if team is None:
        known = ", ".join(team.name for team in config.teams) or "none"
        raise click.ClickException(f"no team {name!r} in the config (teams: {known})")
    return team


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to completion, on uvloop if it is installed."""
    import asyncio

    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


@asynccontextmanager
async def opened_store(config: "Config") -> "AsyncIterator[Store]":
    """Open the store for a command. A running gateway may use it at the same time."""
    from gateway.store.urls import open_store

    store = open_store(config.store.url)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn exceptions into one sentence on stderr and exit code 1."""
    try:
        yield
    except (click.exceptions.Exit, click.Abort, click.ClickException):
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as problem:  # noqa: BLE001 - the last place where it can be reported
        raise click.ClickException(_sentence(problem)) from None


def _sentence(problem: Exception) -> str:
    from gateway.errors import GatewayError
    from gateway.logs import redact

    match problem:
        case GatewayError():
            text = problem.detail
        case ModuleNotFoundError():
            text = f"this command needs {problem.name}, which is not installed"
        case OSError():
            text = _os_error(problem)
        case ValueError():
            text = str(problem) or "a value is out of range"
        case _:
            text = f"unexpected {type(problem).__name__}: {problem}"
    return redact(" ".join(text.split()))


def _os_error(problem: OSError) -> str:
    # asyncio: "[Errno 98] error while attempting to bind on address …: address already in use".
    reason = problem.strerror or str(problem) or type(problem).__name__
    return f"{problem.filename}: {reason}" if problem.filename else reason
