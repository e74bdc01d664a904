"""`gateway serve`, `demo`, `simulate`: commands that run until they are stopped."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import os
from functools import partial
from pathlib import Path

import click

from gateway.commands.common import CONFIG_OPTION, config_file, load_config, plain_errors, run

_LAST_PORT = 65535


@click.command()
@CONFIG_OPTION
def serve(config_path: Path | None) -> None:
    """Run the gateway. SIGTERM shuts it down, SIGHUP reloads the config."""
    path = config_file(config_path)
    config = load_config(path, serving=True)
    with plain_errors():
        from gateway import app, logs
        from gateway.config import load

        logs.configure(config.logs.format, config.logs.level, config.secret_values(), queued=True)
        run(app.serve(config, reread=partial(load, path, os.environ, serving=True), echo=click.echo))


@click.command()
@click.option("--port", type=click.IntRange(0, _LAST_PORT), default=8080, show_default=True, help="Port to listen on.")
def demo(port: int) -> None:
    """Try the gateway without a Replicate token.

    Starts a simulator, a gateway and a demo page, with keys and data in a temporary folder.
    """
    with plain_errors():
        from gateway import logs
        from gateway.demo import run_demo

        logs.configure("console", "warning")
        run(run_demo(port, click.echo))


@click.command()
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
