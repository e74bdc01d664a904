"""What the commands share: the config, the event loop, and how trouble is told: in a sentence, never a traceback."""

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
    help="The config; else $GATEWAY_CONFIG, else ./config.toml.",
)


def chosen(path: Path | None) -> Path | None:
    """Return the file that the command names, else the one that was named before the command."""
    context = click.get_current_context()
    named: Path | None = context.find_root().params.get("config_path")
    return path or named


def load_config(path: Path | None, *, serving: bool = False) -> "Config":
    """Load the config; end the command with everything that is wrong with it. Without `serving` secrets may miss."""
    from gateway.config import ConfigError, load

    try:
        return load(chosen(path), os.environ, serving=serving)
    except ConfigError as error:
        for problem in error.problems:
            click.echo(str(problem), err=True)
        if len(error.problems) > 1:
            click.echo(f"{len(error.problems)} problems; nothing was done.", err=True)
        raise click.exceptions.Exit(1) from None


def known_team(config: "Config", name: str) -> "Team":
    """Return a team of the config."""
    team = config.team(name)
    if team is None:
        known = ", ".join(team.name for team in config.teams) or "none"
        raise click.ClickException(f"there is no team {name!r} in the config (there are: {known})")
    return team


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end, on uvloop where there is one."""
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
    """Open the store, beside a gateway that may be serving from it."""
    from gateway.store.urls import open_store

    store = open_store(config.store.address.get_secret_value())
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what was raised into one sentence on stderr and exit code 1."""
    try:
        yield
    except (click.exceptions.Exit, click.Abort, click.ClickException):
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as problem:  # noqa: BLE001 - nobody above could tell it any better
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
            text = _of_system(problem)
        case ValueError():
            text = str(problem) or "a value is out of range"
        case _:
            text = f"unexpected {type(problem).__name__}: {problem}"
    return redact(" ".join(text.split()))


def _of_system(problem: OSError) -> str:
    # asyncio says "[Errno 98] error while attempting to bind on address …: address already in use".
    reason = problem.strerror or str(problem) or type(problem).__name__
    return f"{problem.filename}: {reason}" if problem.filename else reason
