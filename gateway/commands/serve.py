"""`gateway serve`, `demo`, `simulate`: what runs until it is stopped."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
from pathlib import Path

import click

from gateway.commands.common import CONFIG_OPTION, load_config, plain_errors, run

_LAST_PORT = 65535


@click.command()
@CONFIG_OPTION
def serve(config_path: Path | None) -> None:
    """Serve callers until stopped."""
    config = load_config(config_path, serving=True)
    with plain_errors():
        from gateway import app, logs

        logs.configure(config.logs.format, config.logs.level, config.secret_values(), queued=True)
        run(app.serve(config, echo=click.echo))


@click.command()
@click.option("--port", type=click.IntRange(0, _LAST_PORT), default=8080, show_default=True, help="Where to listen.")
def demo(port: int) -> None:
    """Try it out, without a token.

    A simulator, a gateway before it, a page to try it in, and keys, all in a temporary folder.
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
    help="Where to listen; outputs and streams are on the next port.",
)
@click.option("--speed", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True, help="Divides waits.")
@click.option("--faults", type=click.Path(path_type=Path), metavar="FILE", help="Faults to strike with (TOML or JSON).")
@click.option("--control", is_flag=True, help="Let callers set faults and the clock over HTTP.")
def simulate(port: int, speed: float, faults: Path | None, *, control: bool) -> None:
    """Run the stand-in for Replicate alone."""
    with plain_errors():
        from gateway import logs
        from gateway.simulator import SimulatorSettings, load_faults
        from gateway.simulator import simulate as run_simulator

        settings = SimulatorSettings(
            port=port,
            delivery_port=port + 1 if port else 0,
            speed=speed,
            faults=load_faults(faults) if faults else (),
            control=control,
        )
        logs.configure("console", "warning")
        run(run_simulator(settings, echo=click.echo))
