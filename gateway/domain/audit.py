"""The audit log: who changed what, and when (docs/audit.md).

Each change is recorded in the transaction that makes it. A change that changed nothing is not recorded.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NewType

import msgspec

Actor = NewType("Actor", str)
"""Who made a change: `cli:<OS user>`, `api` (the operators' token), `console:operators` (an operator's session of the
console), `key:<id>` (the holder of a key, by the API or the console), `issuer:<user>`, or `config`."""

BY_API = Actor("api")
BY_CONFIG = Actor("config")
BY_OPERATORS = Actor("console:operators")


_KEY = "key:"


def by_key(key_id: str) -> Actor:
    """Return the holder of a key as an actor."""
    return Actor(f"{_KEY}{key_id}")


def key_of(actor: str) -> str | None:
    """Return the id of an actor's key; `None` for others."""
    return actor.removeprefix(_KEY) if actor.startswith(_KEY) else None


class Action(StrEnum):
    """What was done."""

    KEY_CREATED = "key.created"
    KEY_CHANGED = "key.changed"
    KEY_ROTATED = "key.rotated"
    KEY_REVOKED = "key.revoked"
    WEBHOOK_SECRET_ROTATED = "webhook_secret.rotated"  # noqa: S105 - the name of an action
    WEBHOOKS_REDELIVERED = "webhooks.redelivered"
    USAGE_ADJUSTED = "usage.adjusted"
    CACHE_PURGED = "cache.purged"
    STORE_COPIED = "store.copied"
    STORE_MIGRATED = "store.migrated"
    CONFIG_LOADED = "config.loaded"


class AuditedOperation(msgspec.Struct, frozen=True, kw_only=True):
    """An operation that takes several transactions, and has one entry."""

    id: str
    """Chosen by the caller, and random."""
    at: float
    actor: Actor


Values = Mapping[str, Any]
"""Values by name, as JSON can represent them. Secrets have no place in them."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change to record."""

    action: Action
    subject: str
    """What was changed: the id of a key or a delivery, a team's name, or a word for what there is one of."""
    team: str | None = None
    """Whose it is; `None` for what belongs to no team."""
    before: Values | None = None
    """What it was; only the values that the change concerns. `None` for something new."""
    after: Values | None = None
    """What it is now; `None` if that is empty, or has gone."""
    operation: str | None = None
    """The id of an operation that takes several transactions. Its later changes replace the entry of its first."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of the audit log."""

    id: int
    at: float
    actor: str
    action: str
    """One of `Action`, or what another version of the gateway wrote."""
    subject: str
    team: str | None
    before: Values | None
    after: Values | None


AuditPlace = tuple[float, int]
"""The place of an entry in the list: its `at` and `id`."""


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries to list. `None` means all."""

    team: str | None = None
    actor: str | None = None
    action: str | None = None
    subject: str | None = None
    since: float | None = None
    """The earliest time, inclusive."""
    until: float | None = None
    """The latest time, exclusive."""


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the audit log, newest first."""

    entries: list[AuditEntry]
    has_more: bool
    """Whether there are older ones."""
