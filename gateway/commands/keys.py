"""`gateway keys`: create, list, revoke and rotate keys. A key is printed once, when it is created."""

# ruff: noqa: PLC0415 - heavy modules are imported where they are used
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from gateway.commands.common import CONFIG_OPTION, actor, known_team, load_config, opened_store, plain_errors, run

if TYPE_CHECKING:
    from gateway.config import Config, Team
    from gateway.domain.records import Key

T = TypeVar("T")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._@-]{0,63}")
_NO_OVERLAP: Final = ("0", "0s")


@click.group()
def keys() -> None:
    """Create, list, revoke and rotate keys."""


@keys.command("create")
@click.argument("team_name", metavar="TEAM")
@click.option("--name", help="Name of the key. Default: its id.")
@click.option("--expires", metavar="DURATION", help="Lifetime, for example 90d. Default: no expiry.")
@click.option("--scope", "scopes", multiple=True, help="Scope; may be repeated. Default: all scopes of the team.")
@click.option("--model", "models", multiple=True, metavar="GLOB", help="Targets that it may run; may be repeated.")
@click.option(
    "--origin", "origins", multiple=True, metavar="URL", help="Web origin that it works from; may be repeated."
)
@CONFIG_OPTION
def create(
    team_name: str,
    name: str | None,
    expires: str | None,
    scopes: tuple[str, ...],
    models: tuple[str, ...],
    origins: tuple[str, ...],
    config_path: Path | None,
) -> None:
    """Create a key for TEAM and print it. It is not shown again."""
    config = load_config(config_path)
    with plain_errors():
        from gateway.access.rules.api_keys import new_key
        from gateway.domain.records import Key

        team, now = known_team(config, team_name), time.time()
        minted = new_key(secrets.token_bytes)
        key = Key(
            id=minted.id,
            team=team.name,
            name=_free_name(team, name or minted.id),
            sha256=minted.sha256,
            created_at=now,
            expires_at=None if expires is None else now + _duration("--expires", expires),
            scopes=_scopes(team, scopes),
            models=_models(team, models),
            origins=_origins(team, origins),
        )

        async def add() -> None:
            async with opened_store(config, create=True) as store:
                await store.add_key(key, actor=actor())

        run(add())
        # Only the key goes to stdout, so that it can be captured. Messages go to stderr.
        click.echo(minted.key)
        click.echo(
            f"Created key {key.id} ({key.name}) of team {key.team}{_expiry(key)}. It is not shown again: save it now.",
            err=True,
        )
        unlisted = (
            [] if "*" in team.browser_origins else [o for o in key.origins or () if o not in team.browser_origins]
        )
        if unlisted:
            click.echo(
                f"warning: CORS allows only the origins of teams in the config; "
                f"add {', '.join(unlisted)} to the origins of {team.name}",
                err=True,
            )


@keys.command("list")
@click.option("--team", "team_name", metavar="TEAM", help="Only this team.")
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table", show_default=True)
@CONFIG_OPTION
def list_(team_name: str | None, style: str, config_path: Path | None) -> None:
    """List the keys of the config and the issued keys."""
    config = load_config(config_path)
    with plain_errors():
        if team_name is not None:
            known_team(config, team_name)

        async def fetch() -> "list[Key]":
            async with opened_store(config) as store:
                return await store.keys(team_name)

        now = time.time()
        configured = [key for team in config.teams if team_name in {None, team.name} for key in team.issued_keys()]
        rows = [_row(key, "config", now) for key in configured] + [_row(key, "issued", now) for key in run(fetch())]
        click.echo(json.dumps({"keys": rows}, indent=2) if style == "json" else _table(rows))


@keys.command("revoke")
@click.argument("key_id", metavar="KEY_ID")
@CONFIG_OPTION
def revoke(key_id: str, config_path: Path | None) -> None:
    """Revoke a key at once. This cannot be undone."""
    config = load_config(config_path)
    with plain_errors():
        now, wanted = time.time(), _key_id(config, key_id)

        async def end() -> "Key | None":
            async with opened_store(config) as store:
                return await store.revoke_key(wanted, now, actor=actor())

        key = run(end())
        if key is None:
            raise click.ClickException(_no_key(wanted))
        if key.revoked_at is not None and key.revoked_at < now:
            click.echo(
                f"Key {key.id} ({key.name}) of team {key.team} was already revoked at {_moment(key.revoked_at)}."
            )
        else:
            click.echo(f"Key {key.id} ({key.name}) of team {key.team} is revoked.")


@keys.command("rotate")
@click.argument("key_id", metavar="KEY_ID")
@click.option(
    "--overlap", default="1h", show_default=True, metavar="DURATION", help="How long the old key still works."
)
@CONFIG_OPTION
def rotate(key_id: str, overlap: str, config_path: Path | None) -> None:
    """Replace a key and print the new one.

    The new key has the same permissions. The old one expires after --overlap.
    """
    config = load_config(config_path)
    with plain_errors():
        from gateway.access.rules.api_keys import new_key

        now, wanted = time.time(), _key_id(config, key_id)
        ends_at = now + (0 if overlap in _NO_OVERLAP else _duration("--overlap", overlap))
        minted = new_key(secrets.token_bytes)

        async def replace() -> "tuple[Key, Key] | None":
            async with opened_store(config) as store:
                known = await store.key(wanted)
                if known is None or known.revoked_at is not None:
                    return None
                known_team(config, known.team)
                successor = _successor(known, minted.id, minted.sha256, now)
                old = await store.rotate_key(wanted, successor, ends_at, actor=actor())
                return None if old is None else (old, successor)

        done = run(replace())
        if done is None:
            raise click.ClickException(f"{_no_key(wanted)}, or it was revoked")
        old, new = done
        click.echo(minted.key)
        click.echo(
            f"Key {new.id} ({new.name}) of team {new.team}{_expiry(new)} replaces {old.id}{_expiry(old)}. "
            "It is not shown again: save it now.",
            err=True,
        )


def _successor(old: "Key", key_id: str, sha256: str, now: float) -> "Key":
    """Return the record of the new key, with the same permissions and lifetime."""
    import msgspec

    life = None if old.expires_at is None else old.expires_at - old.created_at
    name = key_id if old.name == old.id else old.name
    return msgspec.structs.replace(
        old,
        id=key_id,
        name=name,
        sha256=sha256,
        created_at=now,
        expires_at=None if life is None else now + life,
        revoked_at=None,
    )


def _free_name(team: "Team", name: str) -> str:
    if not _NAME.fullmatch(name):
        raise click.BadParameter("expected 1 to 64 letters, digits, spaces or . _ @ -", param_hint="--name")
    if team.key(name) is not None:
        raise click.ClickException(f"team {team.name} already has a key {name!r} in the config")
    return name


def _key_id(config: "Config", given: str) -> str:
    """Return the id of a key. Accepts a whole key too, so that a leaked one can be pasted."""
    from gateway.access.rules.api_keys import parse

    if any(given == key.id for team in config.teams for key in team.issued_keys()):
        raise click.ClickException(f"{given} is defined in the config: change it there")
    return parse(given) or given


def _no_key(key_id: str) -> str:
    return f"no key {key_id!r} (see: gateway keys list)"


def _duration(option: str, text: str) -> int:
    from gateway.commands.durations import parse_duration

    try:
        return parse_duration(text)
    except ValueError as problem:
        raise click.BadParameter(str(problem), param_hint=option) from None


def _scopes(team: "Team", wanted: Sequence[str]) -> tuple[str, ...] | None:
    from gateway.domain.scopes import Scope, scopes_outside

    unknown = [scope for scope in wanted if scope not in set(Scope)]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: the scopes are {', '.join(Scope)}", param_hint="--scope")
    _refuse("--scope", scopes_outside(team.scopes, wanted), team.name, team.scopes)
    return _unique(wanted)


def _models(team: "Team", wanted: Sequence[str]) -> tuple[str, ...] | None:
    from gateway.domain.scopes import is_pattern, patterns_outside

    wrong = [pattern for pattern in wanted if not is_pattern(pattern)]
    if wrong:
        raise click.BadParameter(
            f"{', '.join(wrong)}: expected owner/name, in which * matches any characters, or *", param_hint="--model"
        )
    _refuse("--model", patterns_outside(team.models, wanted), team.name, team.models or ())
    return _unique(wanted)


def _origins(team: "Team", wanted: Sequence[str]) -> tuple[str, ...] | None:
    from gateway.domain.scopes import normal_origin, origins_outside

    try:
        normal = [normal_origin(origin) for origin in wanted]
    except ValueError as problem:
        raise click.BadParameter(str(problem), param_hint="--origin") from None
    _refuse("--origin", origins_outside(team.origins, normal), team.name, team.origins)
    return _unique(normal)


def _refuse(option: str, outside: Iterable[str], team: str, allowed: Iterable[str]) -> None:
    if names := ", ".join(outside):
        raise click.BadParameter(
            f"{names}: not allowed for team {team} (allowed: {', '.join(allowed) or 'none'})",
            param_hint=option,
        )


def _unique(wanted: Iterable[str]) -> tuple[str, ...] | None:
    return tuple(dict.fromkeys(wanted)) or None


def _row(key: "Key", source: str, now: float) -> dict[str, Any]:
    from gateway.access.rules.api_keys import is_valid

    state = (
        "valid" if is_valid(key, now) else "expired" if key.revoked_at is None or key.revoked_at > now else "revoked"
    )
    return {
        "id": key.id,
        "team": key.team,
        "name": key.name,
        "state": state,
        "source": source,
        "created_at": _optional(_moment, key.created_at or None),
        "expires_at": _optional(_moment, key.expires_at),
        "revoked_at": _optional(_moment, key.revoked_at),
        "scopes": _optional(list, key.scopes),
        "models": _optional(list, key.models),
        "origins": _optional(list, key.origins),
    }


def _optional(make: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else make(value)


def _table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "No keys. Create one with: gateway keys create TEAM"
    columns = ["id", "team", "name", "state", "source", "created_at", "expires_at", "scopes", "models", "origins"]
    lines = [[name.removesuffix("_at") for name in columns]]
    for row in rows:
        lines.append([_cell(row[name]) for name in columns])  # noqa: PERF401 - easier to read
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _expiry(key: "Key") -> str:
    return "" if key.expires_at is None else f" (expires {_moment(key.expires_at)})"
