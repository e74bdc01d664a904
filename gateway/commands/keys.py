"""`gateway keys`: create, list, change, revoke and rotate keys. A key is printed once, when it is created.

`gateway/access/key_service.py` does the work, for this and for `/admin/keys`.
"""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.commands.common import (
    CONFIG_OPTION,
    actor,
    examples,
    format_option,
    known_team,
    load_config,
    opened_store,
    plain_errors,
    run,
)
from gateway.commands.key_options import duration, key_options, refused, request_of, unset_option

if TYPE_CHECKING:
    from gateway.access.key_service import Authority, KeyService
    from gateway.access.rules.key_rows import IssuedRow, KeyRow, RevokedRow
    from gateway.config import Config

_NO_OVERLAP: Final = ("0", "0s")
_PAGE: Final = 1000
_COLUMNS: Final = (
    "id", "team", "name", "state", "source", "created_at", "expires_at", "last_used_at", "last_four", "scopes",
    "models", "origins", "limits", "created_by",
)  # fmt: skip


@click.group()
def keys() -> None:
    """Create, list, change, revoke and rotate keys."""


@keys.command(
    "create",
    epilog=examples(
        "gateway keys create acme --name server",
        "gateway keys create acme --name web --expires 90d --scope predict --model 'meta/*' --origin https://app.example.com",
        "gateway keys create acme --name ci --budget-usd-per-day 5 --per-user predictions_per_minute=6",
    ),
)
@click.argument("team_name", metavar="TEAM")
@click.option("--name", help="Name of the key. Default: its id.")
@key_options
@CONFIG_OPTION
def create(team_name: str, config_path: Path | None, **given: Any) -> None:
    """Create a key for TEAM and print it. It is not shown again."""
    config = load_config(config_path)
    with plain_errors(), _by_option():
        team = known_team(config, team_name)
        request = request_of(given, time.time(), team=team.name)
        opened = _service(config, create=True)

        async def add() -> "IssuedRow":
            async with opened as (service, authority):
                return await service.create(authority, request)

        row = run(add())
        # Only the key goes to stdout, so that it can be captured. Messages go to stderr.
        click.echo(row.key)
        click.echo(
            f"Created key {row.id} ({row.name}) of team {row.team}{_expiry(row)}. It is not shown again: save it now.",
            err=True,
        )
        unlisted = (
            [] if "*" in team.browser_origins else [o for o in row.origins or () if o not in team.browser_origins]
        )
        if unlisted:
            click.echo(
                f"warning: CORS allows only the origins of teams in the config; "
                f"add {', '.join(unlisted)} to the origins of {team.name}",
                err=True,
            )


@keys.command("list")
@click.option("--team", "team_name", metavar="TEAM", help="Only this team.")
@click.option(
    "--created-by", metavar="ACTOR", help="Only keys of this creator, such as key:KEY_ID (see: gateway audit)."
)
@format_option("table", "json")
@CONFIG_OPTION
def list_(team_name: str | None, created_by: str | None, style: str, config_path: Path | None) -> None:
    """List the keys of the config and the issued keys."""
    config = load_config(config_path)
    with plain_errors():
        from msgspec import to_builtins

        if team_name is not None:
            known_team(config, team_name)
        opened = _service(config)

        async def fetch() -> "list[KeyRow]":
            async with opened as (service, _):
                found = await service.list(team=team_name, created_by=created_by, limit=_PAGE)
                rows = found.keys
                while found.next is not None:
                    found = await service.list(
                        team=team_name, created_by=created_by, limit=_PAGE, older_than=found.next
                    )
                    rows += found.keys
                return rows

        found = sorted(run(fetch()), key=lambda row: (row.source, row.team, row.created_at or "", row.id))
        rows = [to_builtins(row) for row in found]
        click.echo(json.dumps({"keys": rows}, indent=2) if style == "json" else _table(rows))


@keys.command(
    "change", epilog=examples("gateway keys change KEY_ID --budget-usd-per-day 10 --unset requests-per-minute")
)
@click.argument("key_id", metavar="KEY_ID")
@click.option("--name", help="New name of the key.")
@key_options
@unset_option
@CONFIG_OPTION
def change(key_id: str, config_path: Path | None, **given: Any) -> None:
    """Change what a key may do. What no option names stays as it is."""
    config = load_config(config_path)
    with plain_errors(), _by_option():
        wanted, request = _key_id(config, key_id), request_of(given, time.time())
        opened = _service(config)

        async def replace() -> "KeyRow":
            async with opened as (service, authority):
                return await service.change(authority, wanted, request)

        with _known(wanted):
            row = run(replace())
        click.echo(f"Key {row.id} ({row.name}) of team {row.team} is changed.")


@keys.command("revoke")
@click.argument("key_id", metavar="KEY_ID")
@CONFIG_OPTION
def revoke(key_id: str, config_path: Path | None) -> None:
    """Revoke a key at once. This cannot be undone."""
    config = load_config(config_path)
    with plain_errors():
        from gateway.domain import times
        from gateway.domain.audit import by_key

        wanted, began = _key_id(config, key_id), times.render(time.time())
        opened = _service(config)

        async def end() -> "RevokedRow":
            async with opened as (service, authority):
                return await service.revoke(authority, wanted)

        with _known(wanted):
            row = run(end())
        whose = f"Key {row.id} ({row.name}) of team {row.team}"
        if row.revoked_at is not None and row.revoked_at < began:
            click.echo(f"{whose} was already revoked at {row.revoked_at}.")
        else:
            click.echo(f"{whose} is revoked.")
        if row.valid_keys_created:
            click.echo(
                f"Valid keys that were created with it: {row.valid_keys_created}. "
                f"List them: gateway keys list --created-by {by_key(row.id)}",
                err=True,
            )


@keys.command("rotate", epilog=examples("gateway keys rotate KEY_ID --overlap 1h"))
@click.argument("key_id", metavar="KEY_ID")
@click.option(
    "--overlap", default="1h", show_default=True, metavar="DURATION", help="How long the old key still works."
)
@CONFIG_OPTION
def rotate(key_id: str, overlap: str, config_path: Path | None) -> None:
    """Replace a key and print the new one.

    The new key has the same permissions and limits. The old one expires after --overlap.
    """
    config = load_config(config_path)
    with plain_errors():
        wanted = _key_id(config, key_id)
        seconds = 0 if overlap in _NO_OVERLAP else duration("--overlap", overlap)
        opened = _service(config)

        async def replace() -> "tuple[IssuedRow, KeyRow]":
            async with opened as (service, authority):
                return await service.rotate(authority, wanted, seconds)

        with _known(wanted):
            new, old = run(replace())
        click.echo(new.key)
        click.echo(
            f"Key {new.id} ({new.name}) of team {new.team}{_expiry(new)} replaces {old.id}{_expiry(old)}. "
            "It is not shown again: save it now.",
            err=True,
        )


def _service(config: "Config", *, create: bool = False) -> "AbstractAsyncContextManager[tuple[KeyService, Authority]]":
    """Return what opens the service of keys, with the authority of operators. Call it before the event loop runs."""
    from gateway.access.key_service import Authority, KeyService
    from gateway.assembly.settings import access_settings, teams_of
    from gateway.runtime.clock import SystemClock
    from gateway.runtime.live import LiveSettings

    teams, access = LiveSettings(teams_of(config)), LiveSettings(access_settings(config))
    authority = Authority(actor=actor())

    @asynccontextmanager
    async def opened() -> "AsyncIterator[tuple[KeyService, Authority]]":
        async with opened_store(config, create=create) as store:
            yield KeyService(store, teams, access, SystemClock()), authority

    return opened()


@contextmanager
def _by_option() -> Iterator[None]:
    """Name the option that is wrong, not the field."""
    from gateway.errors import Unprocessable

    try:
        yield
    except Unprocessable as problem:
        raise refused(problem.fields) from None


@contextmanager
def _known(key_id: str) -> Iterator[None]:
    from gateway.errors import NotFound

    try:
        yield
    except NotFound:
        raise click.ClickException(f"no key {key_id!r} (see: gateway keys list)") from None


def _key_id(config: "Config", given: str) -> str:
    """Return the id of a key. Accepts a whole key too, so that a leaked one can be pasted."""
    from gateway.access.rules.api_keys import parse

    if any(given == key.id for team in config.teams for key in team.issued_keys()):
        raise click.ClickException(f"{given} is defined in the config: change it there")
    return parse(given) or given


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "No keys. Create one with: gateway keys create TEAM"
    lines = [[name.removesuffix("_at") for name in _COLUMNS]]
    lines += [[_cell(row[name]) for name in _COLUMNS] for row in rows]
    widths = [max(len(line[index]) for line in lines) for index in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case list() | tuple():
            return ",".join(map(str, value))
        case dict():
            return ",".join(f"{name}={_cell(each)}" for name, each in value.items()) or "-"
        case _:
            return str(value)


def _expiry(row: "KeyRow") -> str:
    return "" if row.expires_at is None else f" (expires {row.expires_at})"
