"""`gateway usage`: report runs, spend and savings, and correct spend. Works while the gateway is running."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from gateway.commands.adjust import adjust
from gateway.commands.common import (
    CONFIG_OPTION,
    examples,
    known_team,
    load_config,
    opened_store,
    plain_errors,
    run,
)

if TYPE_CHECKING:
    from gateway.config import Config


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "gateway usage --by model",
        "gateway usage --team acme --since 2026-01-01 --until 2026-01-31 --format csv",
        "gateway usage --by tag:project",
    ),
)
@click.option("--team", "team_name", metavar="TEAM", help="Only this team.")
@click.option("--since", metavar="DAY", help="First day (2026-01-31) or age (30d). Default: start of the month.")
@click.option("--until", metavar="DAY", help="Last day. Default: today. Days are UTC.")
@click.option(
    "--by",
    metavar="team|key|model|day|user|tag:KEY",
    default="team",
    show_default=True,
    help="Group by; tag:project by the values of the tag project.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json", "csv", "focus"]),
    default="table",
    show_default=True,
    help="focus: charges by day, team, key, model and tags, as CSV with the columns of FOCUS 1.2.",
)
@CONFIG_OPTION
@click.pass_context
def usage(
    context: click.Context,
    team_name: str | None,
    since: str | None,
    until: str | None,
    by: str,
    style: Literal["table", "json", "csv", "focus"],
    config_path: Path | None,
) -> None:
    """Show runs, spend and savings."""
    if context.invoked_subcommand is not None:
        return
    config = load_config(config_path)
    with plain_errors():
        from gateway.domain.ledger import By, Grouping
        from gateway.money.rules import usage_table
        from gateway.money.usage import UsageService
        from gateway.runtime.clock import SystemClock

        try:
            grouping = Grouping.parse(by)
        except ValueError:
            raise click.BadParameter(f"{by!r} is not one of {', '.join(By)}:KEY", param_hint="--by") from None
        first, last = window(since, until)
        if style == "focus":
            if grouping.by is not By.TEAM:
                raise click.BadParameter("does not apply to --format focus", param_hint="--by")
            run(_print_focus(config, team_name, first, last))
            return

        async def fetch() -> dict[str, Any]:
            async with opened_store(config) as store:
                return dict(await UsageService(store, store, SystemClock()).usage(team_name, grouping, first, last))

        found = run(fetch())
        if team_name is not None and not found["rows"]:
            # A team that was removed from the config may have usage.
            known_team(config, team_name)
        if grouping.by is By.TAG and not any(row["value"] for row in found["rows"]):
            # A tag that was removed from the config may have usage.
            _check_tag(config, grouping.tag)
        match style:
            case "json":
                click.echo(json.dumps(found, indent=2))
            case "csv":
                click.echo(usage_table.csv(found, by), nl=False)
            case "table":
                click.echo(_table(found, by))


usage.add_command(adjust)


def _check_tag(config: "Config", tag: str) -> None:
    if tag not in config.tags.keys:
        known = f"the tags are {', '.join(config.tags.keys)}" if config.tags.keys else "[tags] keys is empty"
        raise click.BadParameter(f"there is no tag {tag}: {known}", param_hint="--by")


async def _print_focus(config: "Config", team: str | None, since: int, until: int) -> None:
    from gateway.domain import money
    from gateway.money.exports import Exporter

    def report(microusd: int) -> None:
        why = "their ledger entries are older than [store] retain_days."
        click.echo(f"Charges of ${money.usd(microusd)} are not listed: {why}", err=True)

    async with opened_store(config) as store:
        async for text in Exporter(store).charges_as_focus(since, until, team, on_missing=report):
            click.echo(text, nl=False)


def window(since: str | None, until: str | None) -> tuple[int, int]:
    """Return the days from `--since` to `--until`, both included. The default is this month so far."""
    from gateway.domain import windows
    from gateway.domain.windows import Window

    today = windows.day_of(time.time())
    first = windows.first_day(Window.MONTH, today) if since is None else _day("--since", since, today)
    last = max(first, today) if until is None else _day("--until", until, today)
    if last < first:
        raise click.BadParameter("must not be before --since", param_hint="--until")
    return first, last


def _day(option: str, text: str, today: int) -> int:
    from gateway.commands.durations import parse_duration
    from gateway.domain import windows

    try:
        return windows.parse_day(text)
    except ValueError:
        pass
    try:
        return windows.day_of(today * 86_400 - parse_duration(text))
    except ValueError:
        raise click.BadParameter("expected a day (2026-01-31) or an age (30d)", param_hint=option) from None


def _table(found: dict[str, Any], by: str) -> str:
    if not found["rows"]:
        return f"No usage from {found['from']} to {found['to']}."
    from gateway.money.rules import usage_table

    total = {**dict.fromkeys(usage_table.names(by), ""), "team": "total", **found["total"]}
    lines = [usage_table.columns(by), *(usage_table.cells(row, by) for row in (*found["rows"], total))]
    widths = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    words = len(usage_table.names(by))
    return "\n".join(
        "  ".join(
            cell.ljust(width) if index < words else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
