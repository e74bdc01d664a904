"""What the audit log says about changes of keys. The secret and its digest are not in it."""

from typing import Any

from gateway.domain import times
from gateway.domain.audit import Action, Change
from gateway.domain.limits import NO_LIMITS, allowance_by_name
from gateway.domain.records import Key

_SHOWN = ("name", "scopes", "models", "origins")


def created(key: Key) -> Change:
    """Return the change that adds a key."""
    return Change(action=Action.KEY_CREATED, subject=key.id, team=key.team, after=values_of(key))


def changed(old: Key, new: Key) -> Change:
    """Return the change of what a key may do: only the values that differ."""
    before, after = values_of(old), values_of(new)
    differ = [name for name in after if before[name] != after[name]]
    return Change(
        action=Action.KEY_CHANGED,
        subject=new.id,
        team=new.team,
        before={name: before[name] for name in differ},
        after={name: after[name] for name in differ},
    )


def rotated(old: Key, expiring: Key, successor: Key) -> Change:
    """Return the change that replaces a key. `expiring` is the old key with its new expiry."""
    return Change(
        action=Action.KEY_ROTATED,
        subject=old.id,
        team=old.team,
        before={"expires_at": _moment(old.expires_at)},
        after={"expires_at": _moment(expiring.expires_at), "successor": successor.id} | values_of(successor, "new_"),
    )


def revoked(key: Key) -> Change:
    """Return the change that revokes a key."""
    return Change(
        action=Action.KEY_REVOKED,
        subject=key.id,
        team=key.team,
        before={"revoked_at": None},
        after={"revoked_at": _moment(key.revoked_at)},
    )


def values_of(key: Key, prefix: str = "") -> dict[str, Any]:
    """Return what a key may do, by name."""
    found = {name: getattr(key, name) for name in _SHOWN}
    found |= {"limits": allowance_by_name(key.allowance or NO_LIMITS), "expires_at": _moment(key.expires_at)}
    return {prefix + name: value for name, value in found.items()}


def _moment(at: float | None) -> str | None:
    return None if at is None else times.render(at)
