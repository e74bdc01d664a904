"""Limits of teams, keys, users and addresses. `None` means no limit.

See docs/architecture.md, Limits.

A request must be within all limits that apply to it. This module only defines them. Request rates are checked in memory
(`throttling`), limits on runs and budgets in the store (`quota`).
"""

from enum import StrEnum

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one subject. Amounts are integer micro-dollars; days and months are UTC."""

    requests_per_minute: int | None = None
    predictions_per_minute: int | None = None
    burst: int | None = None
    """Burst of both rates. Default: a sixth of the rate, at least 1."""
    concurrent_predictions: int | None = None
    seconds_per_day: float | None = None
    seconds_per_month: float | None = None
    microusd_per_day: int | None = None
    microusd_per_month: int | None = None


UNLIMITED = Limits()


class SubjectKind(StrEnum):
    """What a limit applies to."""

    TEAM = "team"
    KEY = "key"
    USER = "user"
    ADDRESS = "address"
    ACCOUNT = "account"
    GATEWAY = "gateway"


OWN_OF_PAGES = frozenset({SubjectKind.USER, SubjectKind.ADDRESS})
"""Whose limits and usage a web page sees: its user's and its address's. Those of the team and of the key describe all
visitors."""


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a team or a key, and of each of its users and addresses."""

    own: Limits = UNLIMITED
    per_user: Limits = UNLIMITED
    per_address: Limits = UNLIMITED

    @property
    def is_unlimited(self) -> bool:
        """Whether there are no limits."""
        return self == NO_LIMITS


NO_LIMITS = Allowance()


class Subject(msgspec.Struct, frozen=True):
    """Something with counters and limits of its own. `id` is unique among subjects of the same kind."""

    of: SubjectKind
    id: str
    limits: Limits
    label: str
    """Name in rate-limit headers: `team`, `key`, `token`, `user`, `key-user`, `address` or `key-address`."""

    @property
    def is_configured(self) -> bool:
        """Whether the config names it. The number of others is unbounded, because callers choose their names."""
        return self.label in ("team", "key")
