"""`gateway audit`: show who changed what."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import time
from pathlib import Path
from typing import TYPE_CHECKING

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
    from gateway.domain.audit import AuditEntry

_PAGE = 1000


@click.command(
    epilog=examples("gateway audit --team acme --since 7d", "gateway audit --action key.revoked --format csv")
)
@click.option("--team", metavar="TEAM", help="Only changes of this team.")
@click.option("--actor", metavar="ACTOR", help="Only changes by ACTOR, for example cli:root or key:KEY_ID.")
@click.option("--action", metavar="ACTION", help="Only these changes, for example key.created.")
@click.option("--subject", metavar="ID", help="Only changes of this key, delivery or team.")
@click.option("--since", metavar="TIME", help="From this time on: a time, a day, or how long ago, for example 7d.")
@click.option("--until", metavar="TIME", help="Before this time.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=100,
    show_default=True,
    help="Maximum number of entries, newest first.",
)
@format_option("table", "json", "csv")
@CONFIG_OPTION
def audit(
    team: str | None,
    actor: str | None,
    action: str | None,
    subject: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    style: str,
    config_path: Path | None,
) -> None:
    """Show who changed what, newest first.

    Changes of keys, secrets, usage, the cache, deliveries, the store and the config.
    """
    config = load_config(config_path)
    with plain_errors():
        from gateway.domain import csv_text
        from gateway.domain.audit import AuditFilter
        from gateway.operations.rules import audit_rows

        now = time.time()
        which = AuditFilter(
            team=team,
            actor=actor,
            action=action,
            subject=subject,
            since=_time("--since", since, now),
            until=_time("--until", until, now),
        )

        async def fetch() -> "list[AuditEntry]":
            found: list[AuditEntry] = []
            async with opened_store(config) as store:
                while len(found) < limit:
                    last = (found[-1].at, found[-1].id) if found else None
                    page = await store.audit_entries(which, limit=min(_PAGE, limit - len(found)), older_than=last)
                    found += page.entries
                    if not page.has_more:
                        break
            return found

        rows = [audit_rows.row_of(entry) for entry in run(fetch())]
        match style:
            case "json":
                click.echo(audit_rows.json_text(rows))
            case "csv":
                click.echo(csv_text.write(audit_rows.COLUMNS, map(audit_rows.cells_of, rows)), nl=False)
            case _:
                click.echo(audit_rows.table_text(rows) if rows else "No entries.")


def _time(option: str, text: str | None, now: float) -> float | None:
    from gateway.commands.durations import parse_duration
    from gateway.domain import times

    if text is None:
        return None
    for parse in (times.parse, lambda given: now - parse_duration(given)):
        try:
            return parse(text)
        except (ValueError, OverflowError):
            continue
    raise click.BadParameter("expected a time, a day (2026-01-31), or how long ago (7d)", param_hint=option)
