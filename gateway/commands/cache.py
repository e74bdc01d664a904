"""`gateway cache`: see what is kept for later requests, and let it go. Works beside a running gateway."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import json
import time
from pathlib import Path
from typing import Literal

import click

from gateway.commands.common import CONFIG_OPTION, load_config, opened_store, plain_errors, run


@click.group()
def cache() -> None:
    """See what is kept for later requests, and purge it."""


@cache.command()
@click.option("--team", help="Only this team's.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@CONFIG_OPTION
def stats(team: str | None, style: Literal["table", "json"], config_path: Path | None) -> None:
    """Tell how many results are kept, and how large they are."""
    config = load_config(config_path)
    with plain_errors():
        import msgspec

        from gateway.domain import times

        async def ask() -> dict[str, object]:
            async with opened_store(config) as store:
                found: dict[str, object] = msgspec.to_builtins(await store.cache_stats(time.time(), team))
                return found

        found = run(ask())
        if style == "json":
            click.echo(json.dumps(found))
            return
        oldest = found["oldest_ended_at"]
        click.echo(f"results  {found['entries']}")
        click.echo(f"bytes    {found['bytes']}")
        click.echo(f"oldest   {times.render(oldest) if isinstance(oldest, int | float) else '-'}")


@cache.command()
@click.option("--team", help="Only this team's.")
@click.option("--target", metavar="GLOB", help="Only results of these targets, such as 'acme/*'.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@CONFIG_OPTION
def purge(team: str | None, target: str | None, *, yes: bool, config_path: Path | None) -> None:
    """Let results answer no more requests. Predictions that were given out stay as they are."""
    config = load_config(config_path)
    if not yes and team is None and target is None:
        click.confirm("Let go of every result?", abort=True, err=True)
    with plain_errors():

        async def let_go() -> int:
            purged = 0
            async with opened_store(config) as store:
                while (went := await store.purge_cache(team=team, target=target)) > 0:
                    purged += went
            return purged

        click.echo(f"purged {run(let_go())}")
