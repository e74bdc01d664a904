"""What may be granted to a key, by whom, and what a key goes beyond that.

Operators grant what the team has. The holder of a key with the scope `keys` grants at most what that key has, and a
lead whom an issuer names what the team has. Neither grants `account` or `admin`, or changes keys that it could not
create.
"""

from collections.abc import Collection, Container, Iterable, Iterator

import msgspec

from gateway.domain import scopes as scoping
from gateway.domain.limits import NO_LIMITS, UNLIMITED, Allowance, Limits, limits_by_name
from gateway.domain.records import Key
from gateway.domain.scopes import Scope
from gateway.domain.teams import Team
from gateway.errors import InvalidField

NEVER_GRANTED = frozenset({Scope.ACCOUNT, Scope.ADMIN})
"""Scopes that only operators grant."""
_DEFAULT_BURST = 6
"""The burst of a rate without one is this part of it."""
_MOST_SHOWN = 20
_OPEN = "list them: null would also grant what the team is given later, and you may not have"


class Grants(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody may grant to a key of a team."""

    team: Team
    is_operator: bool = False
    is_lead: bool = False
    """Whether an issuer says that somebody leads the team: no key bounds what is granted."""
    scopes: frozenset[Scope]
    allowance: Allowance = NO_LIMITS
    """No limit can be wider than these."""
    expires_at: float | None = None
    """No key can expire later."""
    models: tuple[str, ...] | None = None
    """The list of models that a new key has if it names none. No list can be wider than this and that of the team."""
    holder: Key | None = None
    """The key of the store by which these were found."""


def of_operator(team: Team) -> Grants:
    """Return what operators may grant."""
    return Grants(team=team, is_operator=True, scopes=team.scopes)


def of_lead(team: Team) -> Grants:
    """Return what the lead of a team may grant."""
    return Grants(team=team, is_lead=True, scopes=team.scopes - NEVER_GRANTED)


def of_holder(team: Team, own: Key, allowance: Allowance) -> Grants:
    """Return what the holder of a key may grant: by the key as it is now, not as it was authenticated."""
    return Grants(
        team=team,
        scopes=scoping.narrow(team.scopes, own.scopes) - NEVER_GRANTED,
        allowance=allowance,
        expires_at=own.expires_at,
        models=own.models,
    )


def new_key(grants: Grants) -> Key:
    """Return a key without a name and secret, as it is if the request says nothing else.

    An operator's key has the rights of its team. A holder's key has those of the holder's, without the scope `keys`.
    """
    scopes = None
    if not grants.is_operator:
        scopes = tuple(scope for scope in Scope if scope in grants.scopes - {Scope.KEYS})
    return Key(
        id="",
        team=grants.team.name,
        name="",
        sha256="",
        created_at=0.0,
        scopes=scopes,
        models=grants.models,
        expires_at=grants.expires_at,
        allowance=None if grants.allowance == NO_LIMITS else grants.allowance,
    )


def left_open(grants: Grants, key: Key, before: Key | None = None) -> list[InvalidField]:
    """Return what a key is newly to have without a list: all that its team has, also what the team is given later.

    A holder grants the scopes that it has today, and no more models than it can ever have itself.
    """
    if grants.is_operator:
        return []
    found = []
    if key.scopes is None and (before is None or before.scopes is not None):
        found.append("scopes")
    if key.models is None and grants.models is not None and (before is None or before.models is not None):
        found.append("models")
    return [InvalidField("invalid_value", field, _OPEN) for field in found]


def beyond(grants: Grants, key: Key) -> list[InvalidField]:
    """Return in what a key goes beyond what may be granted, by field."""
    return [InvalidField("invalid_value", field, reason) for field, reason in _beyond(grants, key)]


def beyond_as_used(grants: Grants, key: Key) -> list[InvalidField]:
    """Return the same for a key as it works: what its team does not have any more, it does not have either."""
    return [InvalidField("invalid_value", field, reason) for field, reason in _beyond(grants, key, as_used=True)]


def _beyond(grants: Grants, key: Key, *, as_used: bool = False) -> Iterator[tuple[str, str]]:
    team = grants.team
    whose = f"team {team.name}" if grants.is_operator or grants.is_lead else "your key"
    wanted = sorted(team.scopes) if key.scopes is None else key.scopes
    if as_used:
        wanted = sorted(scoping.narrow(team.scopes, wanted))
    if outside := [scope for scope in wanted if scope not in grants.scopes]:
        yield "scopes", _refusal(outside, whose, [scope for scope in Scope if scope in grants.scopes])
    patterns = team.models if key.models is None else key.models
    outside = [each for each in patterns if scoping.patterns_outside(team.models, team.without_aliases([each]))]
    if outside and not as_used:
        yield "models", _refusal(outside, whose, team.models, team)
    elif grants.models is not None and (outside := _outside(grants.models, patterns, team.aliases)):
        yield "models", _refusal(outside, whose, grants.models, team)
    if not as_used and (outside := scoping.origins_outside(team.listed_origins, key.origins or ())):
        yield "origins", _refusal(outside, f"team {team.name}", team.listed_origins)
    if grants.expires_at is not None and (key.expires_at is None or key.expires_at > grants.expires_at):
        yield "expires_at", "a key cannot expire later than the one that creates it"
    has, may = key.allowance or NO_LIMITS, grants.allowance
    yield from _wider(may.own, has.own, "limits")
    yield from _wider(may.per_user, has.per_user, "limits.per_user")
    yield from _wider(may.per_address, has.per_address, "limits.per_address")


def _outside(holders: Collection[str], patterns: Iterable[str], aliases: Container[str]) -> list[str]:
    """Return what the list of a key's holder does not cover, now or after a change of an alias.

    Either key could get another target then. So only the same alias covers an alias, and nothing else.
    """
    real = [pattern for pattern in holders if pattern not in aliases]
    return [
        each
        for each in patterns
        if "*" not in real and (each not in holders if each in aliases else scoping.patterns_outside(real, [each]))
    ]


def _wider(may: Limits, has: Limits, path: str) -> Iterator[tuple[str, str]]:
    """Yield the limits that are wider than they may be."""
    if may == UNLIMITED:
        return
    most = limits_by_name(may)
    rates = [rate for rate in (may.requests_per_minute, may.predictions_per_minute) if rate is not None]
    if may.burst is None and rates and has.burst is not None:
        # One burst is that of both rates, so the smaller one decides.
        most["burst"] = max(1, min(rates) // _DEFAULT_BURST)
    given = limits_by_name(has)
    for name, limit in most.items():
        if name not in given:
            yield f"{path}.{name}", f"your key has the limit {limit}: a key that it grants needs one too"
        elif given[name] > limit:
            yield f"{path}.{name}", f"at most {limit}, which is the limit of your key"


def _refusal(outside: list[str], whose: str, allowed: object, team: Team | None = None) -> str:
    aliases = {} if team is None else team.aliases
    outside = [f"{each} (an alias of {aliases[each].name})" if each in aliases else each for each in outside]
    listed = list(allowed) if isinstance(allowed, list | tuple) else []
    shown = ", ".join(listed[:_MOST_SHOWN]) + (", …" if len(listed) > _MOST_SHOWN else "")
    return f"{', '.join(outside[:_MOST_SHOWN])}: not allowed for {whose} (allowed: {shown or 'none'})"
