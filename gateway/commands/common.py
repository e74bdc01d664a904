"""Helpers of all commands: load the config, run the event loop, report errors as one sentence without a traceback."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import errno
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

if TYPE_CHECKING:
    from gateway.config import Config, Problem, Team
    from gateway.domain.audit import Actor
    from gateway.store.interface import Store

T = TypeVar("T")
CommandT = TypeVar("CommandT", bound=Callable[..., Any] | click.Command)

_BIND = re.compile(r"bind on address \('(?P<host>[^']*)', (?P<port>\d+)")

CONFIG_OPTION = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Config file. Default: $GATEWAY_CONFIG, else ./config.toml.",
)


def format_option(*names: str, more: str = "") -> Callable[[CommandT], CommandT]:
    """Return the option for the form of the output. The first one is the default."""
    text = f"Form of the output. {more}".strip()
    return click.option("--format", "style", type=click.Choice(names), default=names[0], show_default=True, help=text)


def examples(*lines: str) -> str:
    """Return the end of a command's help: lines to copy."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


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
        raise_problems(error.problems)


def raise_problems(problems: "Sequence[Problem]") -> NoReturn:
    """Report every problem of a config and exit with 1."""
    for problem in problems:
        click.echo(str(problem), err=True)
    if len(problems) > 1:
        click.echo(f"{len(problems)} problems found. No change was made.", err=True)
    raise click.exceptions.Exit(1) from None


def known_team(config: "Config", name: str) -> "Team":
    """Return the team of that name. Raise `ClickException` with the known names if there is none."""
    team = config.team(name)
    if team is None:
        known = ", ".join(team.name for team in config.teams) or "none"
        raise click.ClickException(f"no team {name!r} in the config (teams: {known})")
    return team


def actor() -> "Actor":
    """Return who uses the command line, for the audit log: the user that the process runs as."""
    from gateway.domain.audit import Actor

    try:
        import pwd

        name = pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError, AttributeError):
        # Not Unix, or a user without a name, as in many containers.
        name = str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "unknown")
    return Actor(f"cli:{name}")


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
async def opened_store(config: "Config", *, create: bool = False) -> "AsyncIterator[Store]":
    """Open the store for a command. A running gateway may use it at the same time.

    Only with `create` is a store created that does not exist.
    """
    import asyncio

    from gateway.store.urls import open_store

    store = await asyncio.to_thread(open_store, *config.store.address)
    if await store.open(create=create):
        click.echo(f"Created a new store at {config.store.url}.", err=True)
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
    except BrokenPipeError:
        # The reader of stdout has enough (`gateway check | head -1`): click ends quietly.
        raise
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as problem:  # noqa: BLE001 - the last place where it can be reported
        raise click.ClickException(sentence(problem)) from None


def bind_address(problem: Exception) -> tuple[str, int] | None:
    """Return host and port of a listener that could not be opened, or `None` if it is another error."""
    # asyncio: "[Errno 98] error while attempting to bind on address ('127.0.0.1', 8080): address already in use".
    found = _BIND.search(str(problem)) if isinstance(problem, OSError) else None
    return (found["host"], int(found["port"])) if found else None


def sentence(problem: Exception) -> str:
    """Describe an exception in one sentence without secrets."""
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
    if (address := bind_address(problem)) is not None:
        host, port = address
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        match problem.errno:
            case errno.EADDRINUSE:
                return f"port {port} is in use: another process listens on {shown}; stop it or choose another port"
            case errno.EACCES:
                return f"listening on {shown} is not permitted; ports below 1024 need a privilege: choose another port"
            case errno.EADDRNOTAVAIL:
                return f"cannot listen on {shown}: this machine does not have that address"
    reason = problem.strerror or str(problem) or type(problem).__name__
    return f"{problem.filename}: {reason}" if problem.filename else reason
