"""Limits: how much may be done, and by whom it is counted. What is `None` is not limited.

See docs/architecture.md, Limits.

A team, a key, a user and an address each have limits of their own, and whatever is asked for must be within all of
them. This module says what there is to check; rates are checked at the edge and for the account, money in the store.
"""

from enum import StrEnum

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one may do. Amounts are integer micro-dollars; days and months are UTC."""

    requests_per_minute: int | None = None
    predictions_per_minute: int | None = None
    burst: int | None = None
    """How many of either rate may come at once; not given, a sixth of the rate, at least one."""
    concurrent_predictions: int | None = None
    seconds_per_day: float | None = None
    seconds_per_month: float | None = None
    microusd_per_day: int | None = None
    microusd_per_month: int | None = None


UNLIMITED = Limits()


class SubjectKind(StrEnum):
    """Whose a limit is."""

    TEAM = "team"
    KEY = "key"
    USER = "user"
    ADDRESS = "address"
    ACCOUNT = "account"


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What a team or a key is given: its own limits, and those of each user and address within it."""

    own: Limits = UNLIMITED
    per_user: Limits = UNLIMITED
    per_address: Limits = UNLIMITED

    @property
    def is_unlimited(self) -> bool:
        """Whether nothing is limited."""
        return self == NO_LIMITS


NO_LIMITS = Allowance()


class Subject(msgspec.Struct, frozen=True):
    """One that is counted apart. `id` is unlike that of every other subject of the same sort."""

    of: SubjectKind
    id: str
    limits: Limits
    label: str
    """What it is called where a team's users are told from a key's: `team`, `key`, `token`, `user`, `key-user`,
    `address`, `key-address`."""

    @property
    def is_configured(self) -> bool:
        """Whether the config names it. Others are made up by callers, without number."""
        return self.label in ("team", "key")
