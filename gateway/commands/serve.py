"""`gateway serve`, `demo`, `simulate`: commands that run until they are stopped."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from gateway.commands.common import (
    CONFIG_OPTION,
    bind_address,
    config_file,
    examples,
    plain_errors,
    raise_problems,
    run,
    sentence,
)

if TYPE_CHECKING:
    from gateway.config import Config, Places, Problem

logger = logging.getLogger(__name__)

_LAST_PORT: Final = 65535
_FLUSH_SECONDS: Final = 2.0


@click.command()
@click.option(
    "--workers",
    type=click.IntRange(1),
    metavar="N",
    help="Run N processes on one port, each a node of its own. Needs PostgreSQL. Default: [server] workers.",
)
@click.option("--worker", hidden=True, metavar="LINK")
@CONFIG_OPTION
def serve(workers: int | None, worker: str | None, config_path: Path | None) -> None:
    """Run the gateway. SIGTERM shuts it down, SIGHUP reloads the config."""
    path = config_file(config_path)
    if workers is not None:
        os.environ["GATEWAY__SERVER__WORKERS"] = str(workers)
    with plain_errors():
        from gateway import app, logs
        from gateway.assembly.workers.link import WorkerLink
        from gateway.assembly.workers.supervisor import WorkerFailed, supervise
        from gateway.config import load
        from gateway.runtime.allocator import return_freed_memory

        return_freed_memory()
        config, places, notes = _load(path)
        logs.configure(config.logs.format, config.logs.level, config.secret_values(), queued=True)
        if worker is None:
            _warn(config, places, notes)
        is_text = config.logs.format == "console"

        def echo(text: str) -> None:
            # With JSON logs, all that is printed is JSON: a plain line in between would break its readers.
            click.echo(logs.line(config.logs.format, text))

        try:
            if config.server.workers > 1:
                run(supervise(config, [] if path is None else ["--config", str(path)], os.environ, echo))
                return
            reread = partial(load, path, os.environ, serving=True)
            link = None if worker is None else WorkerLink.parse(worker)
            run(app.serve(config, reread=reread, echo=echo, link=link))
        except WorkerFailed:
            # It has said why.
            raise click.exceptions.Exit(1) from None
        except Exception as problem:  # noqa: BLE001 - the last place where it can be reported
            text = _start_error(problem, config)
            if is_text:
                raise click.ClickException(text) from None
            logger.critical("the gateway has stopped", extra={"reason": text})
            raise click.exceptions.Exit(1) from None
        finally:
            logs.flush(_FLUSH_SECONDS)


def _load(path: Path | None) -> "tuple[Config, Places, list[Problem]]":
    """Load the config, or report every problem, as JSON where the log is JSON, and exit with 1."""
    from gateway import logs
    from gateway.config import ConfigError, load_with_places
    from gateway.config.loading import wants_json_logs

    try:
        return load_with_places(path, os.environ, serving=True)
    except ConfigError as error:
        if not wants_json_logs(path, os.environ):
            raise_problems(error.problems)
        problems = error.problems
    logs.configure("json", "info")
    for problem in problems:
        logger.error("the config is invalid", extra=_fields(problem))
    raise click.exceptions.Exit(1)


def _fields(problem: "Problem") -> dict[str, str]:
    fields = {"path": problem.path, "problem": problem.message, "place": problem.place}
    return {name: value for name, value in fields.items() if value}


def _warn(config: "Config", places: "Places", notes: "Sequence[Problem]") -> None:
    """Log what makes a start differ from what the config file says."""
    from gateway.config import in_container, unreachable_in_container

    warnings = list(notes)
    if (problem := unreachable_in_container(config)) is not None and in_container():
        warnings.append(places.locate(problem))
    for each in warnings:
        logger.warning("check the config", extra=_fields(each))


def _start_error(problem: Exception, config: "Config") -> str:
    """Describe why the gateway stopped. For a port that is taken, name the setting."""
    text = sentence(problem)
    if (address := bind_address(problem)) is not None:
        section = "ops" if address[1] == config.ops.port != config.server.port else "server"
        text += f" ([{section}] host and port)"
    return text


@click.command(epilog=examples("gateway demo --port 18080 --data demo", "gateway demo --origin http://localhost:4000"))
@click.option(
    "--port",
    type=click.IntRange(0, _LAST_PORT),
    default=8080,
    show_default=True,
    help="Port of the gateway; the page, the console and the simulator use the next four.",
)
@click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder for config, keys and data, kept for the next start. Default: a temporary one.",
)
@click.option(
    "--origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="Origin of a web page that may call the gateway, such as http://localhost:4000. Repeatable; the usual ones of"
    " development servers are allowed.",
)
def demo(port: int, data: Path | None, origins: tuple[str, ...]) -> None:
    """Try the gateway without a Replicate token.

    Starts a simulator, a gateway and a demo page, with keys and budgets. Requests are listed on stderr, in colour if
    that is a terminal and NO_COLOR is not set.
    """
    with plain_errors():
        from gateway import logs
        from gateway.demo import request_log, run_demo

        logs.configure("console", "warning")
        with request_log(sys.stderr):
            run(run_demo(port, click.echo, data=data, origins=origins))


@click.command(epilog=examples("gateway simulate --speed 10", "gateway simulate --faults faults.toml"))
@click.option(
    "--port",
    type=click.IntRange(0, _LAST_PORT - 1),
    default=9090,
    show_default=True,
    help="Port to listen on; outputs and streams use the next port.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 or :: for all addresses."
)
@click.option("--public-host", metavar="NAME", help="Host name to use in links.")
@click.option(
    "--speed",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Speed factor: 2 halves all simulated waits.",
)
@click.option(
    "--faults", type=click.Path(path_type=Path), metavar="FILE", help="File of faults to inject (TOML or JSON)."
)
@click.option("--control", is_flag=True, help="Allow setting faults and the clock over HTTP.")
def simulate(
    port: int, host: str, public_host: str | None, speed: float, faults: Path | None, *, control: bool
) -> None:
    """Run the simulator of Replicate."""
    if public_host and not port:
        raise click.UsageError("--public-host requires --port, for the links")
    with plain_errors():
        from gateway import logs
        from gateway.simulator import SimulatorSettings, load_faults
        from gateway.simulator import simulate as run_simulator

        settings = SimulatorSettings(
            host=host,
            port=port,
            delivery_port=port + 1 if port else 0,
            public_url=f"http://{public_host}:{port}" if public_host else None,
            delivery_public_url=f"http://{public_host}:{port + 1}" if public_host else None,
            speed=speed,
            faults=load_faults(faults) if faults else (),
            control=control,
        )
        logs.configure("console", "warning")
        run(run_simulator(settings, echo=click.echo))
