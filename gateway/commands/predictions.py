"""`gateway predictions`: search the predictions of all teams, and show one. Works while the gateway is running."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

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

if TYPE_CHECKING:
    from gateway.operations.rules.prediction_rows import PredictionRow
    from gateway.predictions.ports.search import Wanted

_SHOWN: Final = ("id", "created_at", "team", "key_name", "user", "target", "status", "source", "cost_microusd")
"""Columns of the table. JSON and CSV have all."""
_STATUSES: Final = ("starting", "processing", "succeeded", "failed", "canceled", "aborted")
_SOURCES: Final = ("miss", "joined", "hit", "bypass")


@click.group()
def predictions() -> None:
    """Search predictions and trainings, and show one."""


@predictions.command(
    "list",
    epilog=examples(
        "gateway predictions list --team acme --status failed --since 24h",
        "gateway predictions list --tag project:apollo --limit 5000 --format csv",
    ),
)
@click.option("--team", metavar="TEAM", help="Only this team.")
@click.option("--key", metavar="KEY_ID", help="Only this key.")
@click.option("--user", metavar="USER", help="Only this user of a team.")
@click.option("--kind", type=click.Choice(["prediction", "training"]), help="Only these.")
@click.option("--target", metavar="GLOB", help="Only these targets, for example acme/painter or 'acme/*'.")
@click.option("--status", type=click.Choice(_STATUSES), help="Only this status.")
@click.option("--source", type=click.Choice(_SOURCES), help="How they were answered.")
@click.option("--tag", metavar="KEY:VALUE", help="Only with this cost tag, for example project:apollo.")
@click.option("--since", metavar="TIME", help="Created at this time (2026-01-31T12:00:00Z), day or age (2h) or later.")
@click.option("--until", metavar="TIME", help="Created before this time, day or age.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Maximum number of predictions.")
@format_option("table", "json", "csv")
@CONFIG_OPTION
def list_(limit: int, style: Literal["table", "json", "csv"], config_path: Path | None, **filters: str | None) -> None:
    """List predictions, newest first."""
    config = load_config(config_path)
    with plain_errors():
        import msgspec

        from gateway.assembly.for_commands import prediction_log
        from gateway.domain import csv_text
        from gateway.operations.rules import prediction_rows

        wanted = _wanted(**filters)

        async def fetch() -> "list[PredictionRow]":
            async with opened_store(config) as store:
                return await prediction_log(config, store).search_all(wanted, limit)

        found = run(fetch())
        match style:
            case "json":
                click.echo(json.dumps({"predictions": msgspec.to_builtins(found)}, indent=2))
            case "csv":
                text = csv_text.write(prediction_rows.COLUMNS, map(prediction_rows.cells_of, found))
                click.echo(text, nl=False)
            case "table":
                click.echo(_table(found))


@predictions.command("show")
@click.argument("prediction_id", metavar="ID")
@CONFIG_OPTION
def show(prediction_id: str, config_path: Path | None) -> None:
    """Show a prediction and its explanation, as JSON."""
    config = load_config(config_path)
    with plain_errors():
        import msgspec

        from gateway.assembly.for_commands import prediction_log
        from gateway.errors import NotFound

        async def fetch() -> bytes:
            async with opened_store(config) as store:
                try:
                    log = prediction_log(config, store)
                    found = await log.detail(await log.view(prediction_id), "")
                except NotFound:
                    text = f"no prediction {prediction_id!r} (see: gateway predictions list)"
                    raise click.ClickException(text) from None
            return msgspec.json.encode(found)

        text = run(fetch())
        # Replicate's own bodies can have half a surrogate pair, or any depth.
        with suppress(msgspec.MsgspecError, RecursionError):
            text = msgspec.json.format(text, indent=2)
        click.echo(text.decode(errors="replace"))


def _wanted(**filters: str | None) -> "Wanted":
    from gateway.domain import tags
    from gateway.domain.records import Kind, Source, Status
    from gateway.predictions.ports.search import Wanted

    given: dict[str, Any] = dict(filters)
    given["key_id"] = given.pop("key")
    for name, kind in (("kind", Kind), ("status", Status), ("source", Source)):
        given[name] = None if given[name] is None else kind(given[name])
    if given["tag"] is not None:
        key, colon, value = given["tag"].partition(":")
        if not colon or not tags.KEY.fullmatch(key):
            raise click.BadParameter("expected KEY:VALUE (for example: project:apollo)", param_hint="--tag")
        given["tag"] = (key, value)
    for name in ("since", "until"):
        given[name] = None if given[name] is None else _time(f"--{name}", given[name])
    return Wanted(**given)


def _time(option: str, text: str) -> float:
    import time

    from gateway.commands.durations import parse_duration
    from gateway.domain import times

    try:
        return times.parse(text)
    except (ValueError, OverflowError):
        pass
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        message = "expected a time (2026-01-31T12:00:00Z), a day (2026-01-31) or an age (2h)"
        raise click.BadParameter(message, param_hint=option) from None


def _table(rows: "Sequence[PredictionRow]") -> str:
    if not rows:
        return "No predictions."
    lines = [[name.removesuffix("_at") for name in _SHOWN]]
    lines += [["-" if (value := getattr(row, name)) is None else str(value) for name in _SHOWN] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(_SHOWN))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
