"""`gateway webhooks`: list and redeliver deliveries, and rotate signing secrets.

Works while the gateway is running, which applies changes within about a second.
"""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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

if TYPE_CHECKING:
    from gateway.config import Config
    from gateway.webhooks.rules.deliveries import Delivery

_NO_OVERLAP: Final = ("0", "0s")
_PAGE: Final = 500
_COLUMNS: Final = ("id", "state", "team", "kind", "created_at", "attempts", "next_at", "receiver", "error")


@click.group()
def webhooks() -> None:
    """List and redeliver webhooks, and rotate their secrets."""


@webhooks.command("list")
@click.option("--team", "team_name", metavar="TEAM", help="Only this team.")
@click.option("--state", type=click.Choice(["queued", "dead"]), help="Only pending, or only failed deliveries.")
@format_option("table", "json")
@CONFIG_OPTION
def list_(team_name: str | None, state: str | None, style: str, config_path: Path | None) -> None:
    """List pending and failed deliveries."""
    config = load_config(config_path)
    with plain_errors():
        import msgspec

        from gateway.webhooks.rules.deliveries import DeliveryState
        from gateway.webhooks.rules.rows import row_of

        _check_team(config, team_name)
        wanted = None if state is None else DeliveryState(state)

        async def fetch() -> "list[Delivery]":
            found: list[Delivery] = []
            async with opened_store(config) as store:
                while page := await store.deliveries(
                    team=team_name, state=wanted, after=found[-1].id if found else "", limit=_PAGE
                ):
                    found += page
            return found

        rows = [msgspec.to_builtins(row_of(delivery)) for delivery in run(fetch())]
        click.echo(json.dumps({"deliveries": rows}, indent=2) if style == "json" else _table(rows))


@webhooks.command(
    "redeliver",
    epilog=examples("gateway webhooks redeliver --dead --team acme", "gateway webhooks redeliver DELIVERY_ID"),
)
@click.argument("delivery_id", metavar="[ID]", required=False)
@click.option("--team", "team_name", metavar="TEAM", help="All pending and failed deliveries of a team.")
@click.option("--dead", is_flag=True, help="Only failed deliveries (dead letters), of TEAM or of all teams.")
@CONFIG_OPTION
def redeliver(delivery_id: str | None, team_name: str | None, *, dead: bool, config_path: Path | None) -> None:
    """Redeliver webhooks now.

    Selects one by ID, all of a team, or all dead letters. A delivery keeps its id, so receivers can detect duplicates.
    """
    config = load_config(config_path)
    if (delivery_id is not None) == (team_name is not None or dead):
        raise click.UsageError("give either an ID, or --team and/or --dead")
    with plain_errors():
        _check_team(config, team_name)

        async def repeat() -> int:
            async with opened_store(config) as store:
                if delivery_id is None:
                    return await store.redeliver_all(time.time(), actor=actor(), team=team_name, dead_only=dead)
                return int(await store.redeliver(time.time(), delivery_id, actor=actor()))

        count = run(repeat())
        if delivery_id is not None and not count:
            raise click.ClickException(f"no delivery {delivery_id!r}, or it is being sent (see: gateway webhooks list)")
        click.echo(f"{count} queued for delivery")


@webhooks.command("rotate-secret")
@click.argument("team_name", metavar="TEAM")
@click.option(
    "--overlap", default="24h", show_default=True, metavar="DURATION", help="How long the old secret stays valid."
)
@CONFIG_OPTION
def rotate_secret(team_name: str, overlap: str, config_path: Path | None) -> None:
    """Replace the webhook secret of TEAM and print it.

    During the overlap, deliveries are signed with both secrets, so receivers can switch at any time.
    """
    config = load_config(config_path)
    with plain_errors():
        from gateway.runtime.clock import SystemClock
        from gateway.webhooks.secrets import WebhookSecrets

        _check_team(config, team_name)
        seconds = 0 if overlap in _NO_OVERLAP else _duration(overlap)

        async def replace() -> tuple[int, str]:
            async with opened_store(config) as store:
                secrets = WebhookSecrets(store, SystemClock())
                return await secrets.rotate(team_name, seconds, actor=actor()), await secrets.of(team_name)

        in_use, secret = run(replace())
        # Only the secret goes to stdout, so that it can be captured. Messages go to stderr.
        click.echo(secret)
        also = f"; {_older(in_use - 1)} valid during the overlap" if in_use > 1 else ""
        click.echo(f"Team {team_name} has a new webhook secret{also}.", err=True)


def _check_team(config: "Config", name: str | None) -> None:
    if name is not None and config.team(name) is None:
        known = ", ".join(team.name for team in config.teams) or "none"
        raise click.ClickException(f"no team {name!r} in the config (teams: {known})")


def _older(count: int) -> str:
    return "the old secret stays" if count == 1 else f"{count} old secrets stay"


def _duration(text: str) -> int:
    from gateway.commands.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as problem:
        raise click.BadParameter(str(problem), param_hint="--overlap") from None


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "No pending or failed deliveries."
    lines = [[name.removesuffix("_at") for name in _COLUMNS]]
    lines += [["-" if row[name] is None else str(row[name]) for name in _COLUMNS] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
