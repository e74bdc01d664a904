"""How a key is shown: to operators, to the holders of keys of its team, and on the command line. Without its secret."""

from typing import Any

import msgspec

from gateway.access.rules.api_keys import is_valid
from gateway.domain import times
from gateway.domain.limits import NO_LIMITS, Allowance, allowance_by_name
from gateway.domain.records import Key


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """A key in a list. `None` for scopes, models and origins: those of the team."""

    id: str
    name: str
    team: str
    state: str
    """`valid`, `expired`, `revoked`, or `no team` if the config does not have its team."""
    source: str
    """`config`, or `issued` for a key that was created at run time."""
    scopes: tuple[str, ...] | None
    models: tuple[str, ...] | None
    origins: tuple[str, ...] | None
    limits: dict[str, Any]
    created_at: str | None
    """`None` for keys of the config."""
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    """Within a minute."""
    last_four: str | None
    """The end of the secret; `None` for keys from before it was kept, and where the config has only a digest."""
    created_by: str | None
    """Who created it, as in the audit log; `None` for keys of the config, and if that is not known."""


class IssuedRow(KeyRow, frozen=True, kw_only=True):
    """A key that was just created, with its secret. It is not shown again."""

    key: str

    def __repr__(self) -> str:
        return f"IssuedRow(id={self.id!r})"


class RevokedRow(KeyRow, frozen=True, kw_only=True):
    """A revoked key."""

    valid_keys_created: int
    """How many keys that its holder created with it are valid. They stay so."""


class KeyRows(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a list of keys."""

    keys: list[KeyRow]
    next: tuple[float, str] | None
    """The place of the last one, if there are more."""


class KeyPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of keys, newest first; keys of the config come last."""

    results: list[KeyRow]
    next: str | None
    """The address of the next page; `None` on the last one."""


def row_of(
    key: Key,
    now: float,
    *,
    used_at: float | None = None,
    allowance: Allowance | None = None,
    has_team: bool = True,
) -> KeyRow:
    """Return the row of a key. `allowance` has the limits of a key of the config.

    `has_team` is whether the config has the key's team.
    """
    return KeyRow(
        id=key.id,
        name=key.name,
        team=key.team,
        state=_state(key, now, has_team=has_team),
        source="config" if "/" in key.id else "issued",
        scopes=key.scopes,
        models=key.models,
        origins=key.origins,
        limits=allowance_by_name(allowance or key.allowance or NO_LIMITS),
        created_at=_moment(key.created_at or None),
        expires_at=_moment(key.expires_at),
        revoked_at=_moment(key.revoked_at),
        last_used_at=_moment(used_at),
        last_four=key.last_four,
        created_by=key.created_by,
    )


def _state(key: Key, now: float, *, has_team: bool) -> str:
    if is_valid(key, now):
        return "valid" if has_team else "no team"
    return "revoked" if _is_past(key.revoked_at, now) else "expired"


def issued(row: KeyRow, secret: str) -> IssuedRow:
    """Return the row of a new key with its secret."""
    return IssuedRow(**msgspec.structs.asdict(row), key=secret)


def revoked(row: KeyRow, valid_keys_created: int) -> RevokedRow:
    """Return the row of a revoked key."""
    return RevokedRow(**msgspec.structs.asdict(row), valid_keys_created=valid_keys_created)


def page_of(rows: KeyRows, next_: str | None) -> KeyPage:
    """Return a page with the address of the next one."""
    return KeyPage(results=rows.keys, next=next_)


def _is_past(at: float | None, now: float) -> bool:
    return at is not None and at <= now


def _moment(at: float | None) -> str | None:
    return None if at is None else times.render(at)
