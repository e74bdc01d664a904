"""`gateway usage`: report runs, spend and savings, and correct spend. Works while the gateway is running."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import json
import time
from decimal import Decimal, InvalidOperation
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from gateway.commands.common import CONFIG_OPTION, actor, known_team, load_config, opened_store, plain_errors, run
from gateway.errors import StoreUnavailable

if TYPE_CHECKING:
    from gateway.config import Config

_LONGEST_REASON: Final = 500


@click.group(invoke_without_command=True)
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


@usage.command(context_settings={"ignore_unknown_options": True})
@click.argument("team_name", metavar="TEAM")
@click.argument("amount", metavar="AMOUNT")
@click.option("--reason", required=True, help="Reason; recorded in the ledger.")
@click.option(
    "--id", "adjustment_id", metavar="ID", help="Name of the correction: one with the same ID changes nothing."
)
@click.option(
    "--tag", "given_tags", metavar="KEY=VALUE", multiple=True, help="Correct what this cost tag has cost, too."
)
@click.option("--yes", is_flag=True, help="Do not ask before a budget of the team or a tag is used up.")
@CONFIG_OPTION
def adjust(
    team_name: str,
    amount: str,
    reason: str,
    adjustment_id: str | None,
    given_tags: tuple[str, ...],
    config_path: Path | None,
    *,
    yes: bool,
) -> None:
    """Correct the spend of TEAM by AMOUNT dollars.

    A negative AMOUNT reduces it. The correction is a separate ledger entry, and counts in the budgets of today and this
    month, which are printed. Asks for confirmation if it uses up one of them. With --tag it counts in the budgets of
    the tag, and in usage by tag, too.

    If an error leaves it open whether it was recorded, repeat the command with the ID that the error names.
    """
    config = load_config(config_path)
    with plain_errors():
        from gateway.commands import budgets
        from gateway.domain import money

        team = known_team(config, team_name)
        microusd = _microusd(amount)
        reason = " ".join(reason.split())
        if not 0 < len(reason) <= _LONGEST_REASON or not reason.isprintable():
            raise click.BadParameter(f"expected 1 to {_LONGEST_REASON} printable characters", param_hint="--reason")

        name, tagged = adjustment_id or token_hex(8), _tags(config, given_tags)

        async def predict() -> list[budgets.Effect]:
            async with opened_store(config) as store:
                now = time.time()
                meters = await store.meters(budgets.scopes_of(team, tagged), now)
                return budgets.effects(team, meters, microusd, now, tagged)

        async def correct() -> bool:
            async with opened_store(config) as store:
                try:
                    return await store.adjust(
                        team.name, microusd, reason, time.time(), actor=actor(), adjustment_id=name, tagged=tagged
                    )
                except StoreUnavailable as exc:
                    text = f"{exc.detail} The correction may be recorded. To make sure, repeat it with --id {name}."
                    raise click.ClickException(text) from exc

        effects = run(predict())
        exhausted = [effect for effect in effects if effect.exhausts]
        if exhausted and not yes:
            which = " with these tags" if all(effect.is_of_tag for effect in exhausted) else ""
            click.echo(f"Team {team.name} would get no more predictions{which} that cost money:", err=True)
            click.echo("\n".join(effect.text for effect in exhausted), err=True)
            click.confirm("Correct its spend?", abort=True, err=True)
        if not run(correct()):
            click.echo(f"There is a correction with the ID {name}. Nothing was changed.")
            return
        click.echo(f"Team {team.name}: spend {'raised' if microusd > 0 else 'reduced'} by ${money.usd(abs(microusd))}.")
        for effect in effects:
            click.echo(effect.text)


def _tags(config: "Config", given: tuple[str, ...]) -> str:
    from gateway.domain import tags

    try:
        return tags.parse(",".join(given), config.tags.keys)
    except ValueError as exc:
        raise click.BadParameter(str(exc), param_hint="--tag") from None


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


def _microusd(text: str) -> int:
    from gateway.domain import money

    try:
        microusd = money.exact_microusd(Decimal(text.removeprefix("$")))
    except InvalidOperation:
        raise click.BadParameter("expected dollars (for example: -2.50)", param_hint="AMOUNT") from None
    except ValueError as problem:
        raise click.BadParameter(str(problem), param_hint="AMOUNT") from None
    if microusd == 0:
        raise click.BadParameter("expected an amount other than 0", param_hint="AMOUNT")
    return microusd


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
