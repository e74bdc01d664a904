"""`gateway cache`: show and purge cached results. Works while the gateway is running."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import json
import time
from pathlib import Path
from typing import Literal

import click

from gateway.commands.common import (
    CONFIG_OPTION,
    actor,
    examples,
    format_option,
    load_config,
    opened_store,
    plain_errors,
    run,
)


@click.group()
def cache() -> None:
    """Show and purge cached results."""


@cache.command()
@click.option("--team", metavar="TEAM", help="Only this team.")
@format_option("table", "json")
@CONFIG_OPTION
def stats(team: str | None, style: Literal["table", "json"], config_path: Path | None) -> None:
    """Show number, size and age of cached results."""
    config = load_config(config_path)
    with plain_errors():
        import msgspec

        from gateway.domain import times

        async def fetch() -> dict[str, object]:
            async with opened_store(config) as store:
                found: dict[str, object] = msgspec.to_builtins(await store.cache_stats(time.time(), team))
                return found

        found = run(fetch())
        if style == "json":
            click.echo(json.dumps(found))
            return
        oldest = found["oldest_ended_at"]
        click.echo(f"results  {found['entries']}")
        click.echo(f"bytes    {found['bytes']}")
        click.echo(f"oldest   {times.render(oldest) if isinstance(oldest, int | float) else '-'}")


@cache.command(epilog=examples("gateway cache purge --team acme", "gateway cache purge --target 'acme/*'"))
@click.option("--team", metavar="TEAM", help="Only this team.")
@click.option("--target", metavar="GLOB", help="Only results of these targets, for example 'acme/*'.")
@click.option(
    "--yes", is_flag=True, help="Do not ask before all results are dropped; nothing is asked with --team or --target."
)
@CONFIG_OPTION
def purge(team: str | None, target: str | None, *, yes: bool, config_path: Path | None) -> None:
    """Drop cached results so that they are not reused. Existing predictions are not affected."""
    config = load_config(config_path)
    if not yes and team is None and target is None:
        click.confirm("Drop all cached results?", abort=True, err=True)
    with plain_errors():
        from gateway.operations import purging as operations

        async def purge_all() -> int:
            async with opened_store(config) as store:
                return await operations.purge(store, time.time(), actor(), team=team, target=target)

        click.echo(f"purged {run(purge_all())}")
