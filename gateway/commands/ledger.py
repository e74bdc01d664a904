"""`gateway ledger`: every entry of the ledger, for other systems. Works while the gateway is running."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
from pathlib import Path
from typing import Literal

import click

from gateway.commands.common import (
    CONFIG_OPTION,
    examples,
    format_option,
    load_config,
    opened_store,
    plain_errors,
    run,
)
from gateway.commands.usage import window


@click.group()
def ledger() -> None:
    """Export the ledger."""


@ledger.command(epilog=examples("gateway ledger export --since 2026-01-01 --until 2026-01-31 --format jsonl"))
@click.option("--team", "team_name", metavar="TEAM", help="Only this team.")
@click.option("--since", metavar="DAY", help="First day (2026-01-31) or age (30d). Default: start of the month.")
@click.option("--until", metavar="DAY", help="Last day. Default: today. Days are UTC.")
@format_option("csv", "jsonl")
@CONFIG_OPTION
def export(
    team_name: str | None,
    since: str | None,
    until: str | None,
    style: Literal["csv", "jsonl"],
    config_path: Path | None,
) -> None:
    """Write every ledger entry of some days to stdout.

    An entry is the cost of a run, the amount that a joined prediction or a hit has saved, or a correction. Entries are
    kept for [store] retain_days. A day is complete when it is over.
    """
    config = load_config(config_path)
    with plain_errors():
        from gateway.money.exports import Exporter

        first, last = window(since, until)

        async def write() -> None:
            async with opened_store(config) as store:
                exporter = Exporter(store)
                pieces = exporter.lines_as_csv if style == "csv" else exporter.lines_as_json
                async for text in pieces(first, last, team_name):
                    click.echo(text, nl=False)

        run(write())
