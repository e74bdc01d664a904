"""Limits of teams, keys, users, addresses and values of cost tags. `None` means no limit.

See docs/architecture.md, Limits.

A request must be within all limits that apply to it. This module only defines them. Request rates are checked in memory
(`throttling`), limits on runs and budgets in the store (`quota`).
"""

from enum import StrEnum

import msgspec

from gateway.domain.money import MICROUSD_PER_USD


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


def limits_by_name(limits: Limits) -> dict[str, int | float]:
    """Return the limits that are set, under the names of the config. Budgets are in dollars."""
    given = {name: getattr(limits, name) for name in Limits.__struct_fields__}
    return {
        name.replace("microusd", "budget_usd"): _usd(value) if name.startswith("microusd") else value
        for name, value in given.items()
        if value is not None
    }


def _usd(microusd: int) -> int | float:
    """Return dollars as a number of JSON. A micro-dollar more or less is another number, up to 10^9 dollars."""
    dollars = microusd / MICROUSD_PER_USD
    return int(dollars) if dollars.is_integer() else dollars


class SubjectKind(StrEnum):
    """What a limit applies to."""

    TEAM = "team"
    KEY = "key"
    USER = "user"
    ADDRESS = "address"
    TAG = "tag"
    """A value of a cost tag."""
    ACCOUNT = "account"
    GATEWAY = "gateway"


OWN_OF_PAGES = frozenset({SubjectKind.USER, SubjectKind.ADDRESS})
"""Whose limits and usage a web page sees: its user's and its address's. Those of the team, of the key and of a cost tag
describe all visitors."""


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


def allowance_by_name(allowance: Allowance) -> dict[str, object]:
    """Return the limits that are set. Those of each user and address are below `per_user` and `per_address`."""
    shown: dict[str, object] = dict(limits_by_name(allowance.own))
    for name, limits in (("per_user", allowance.per_user), ("per_address", allowance.per_address)):
        if limits != UNLIMITED:
            shown[name] = limits_by_name(limits)
    return shown


class Subject(msgspec.Struct, frozen=True):
    """Something with counters and limits of its own. `id` is unique among subjects of the same kind."""

    of: SubjectKind
    id: str
    limits: Limits
    label: str
    """Name in rate-limit headers: `team`, `key`, `token`, `user`, `key-user`, `address`, `key-address` or `tag`."""

    @property
    def is_configured(self) -> bool:
        """Whether the config names it. The number of others is unbounded: of users, tokens, and keys that come and go.

        The id of a key of the config is `team/name`, a form that no issued key has.
        """
        return self.label == "team" or (self.label == "key" and "/" in self.id)
