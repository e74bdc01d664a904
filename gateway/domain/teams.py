"""Teams, and a caller: who asks, and what this key lets them do.

A caller's rights are those of the team narrowed by the key, and by the browser token if there is one. Lists of globs
are kept one beside the other and each must allow, so that narrowing can only ever narrow.
"""

from collections.abc import Sequence

import msgspec

from gateway.domain.limits import NO_LIMITS, UNLIMITED, Allowance, Limits, Subject, SubjectKind
from gateway.domain.scopes import Scope
from gateway.domain.targets import allows, allows_everything, exact_models


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as the config describes it."""

    name: str
    scopes: frozenset[Scope]
    models: tuple[str, ...] = ("*",)
    origins: tuple[str, ...] = ()
    may_assert_deterministic: bool = False
    honor_cache_control: bool = False
    allowance: Allowance = NO_LIMITS
    weight: float = 1.0
    """Its share of the account's rates when teams compete."""
    max_wait_seconds: float = 20.0
    """How long a create over a rate is held before it is refused."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """A team's key in use."""

    team: Team
    key_id: str
    key_name: str = ""
    scopes: frozenset[Scope]
    models: tuple[tuple[str, ...], ...]
    """Allow-lists of team, key and token; a target must be on each."""
    origins: tuple[str, ...] | None = None
    """Set for a publishable key: only requests from these pages pass."""
    user: str | None = None
    is_public: bool = False
    """Whether it is in the hands of a page: a publishable key, or a browser token. What a page says of itself, its
    user's name above all, does not count."""
    allowance: Allowance = NO_LIMITS
    """The key's own, which narrows the team's."""
    token_id: str | None = None
    token_limits: Limits = UNLIMITED

    @property
    def counted_as(self) -> str:
        """Name the key, or the browser token, that is in use."""
        return self.key_id if self.token_id is None else f"{self.key_id}#{self.token_id}"

    def subjects(self, user: str | None = None, address: str | None = None) -> tuple[Subject, ...]:
        """Return all under whom a request of this user, from this address, is counted, widest first.

        Those without limits are left out. `address` is given for callers in public hands only.
        """
        team, key = self.team, self.key_id
        counted = [
            Subject(SubjectKind.TEAM, team.name, team.allowance.own, "team"),
            Subject(SubjectKind.KEY, key, self.allowance.own, "key"),
            Subject(SubjectKind.KEY, self.counted_as, self.token_limits, "token"),
        ]
        for of, name, of_team, of_key in (
            (SubjectKind.USER, user, team.allowance.per_user, self.allowance.per_user),
            (SubjectKind.ADDRESS, address, team.allowance.per_address, self.allowance.per_address),
        ):
            if name is not None:
                counted.append(Subject(of, f"team {team.name}: {name}", of_team, str(of)))
                counted.append(Subject(of, f"key {key}: {name}", of_key, f"key-{of}"))
        return tuple(subject for subject in counted if subject.limits != UNLIMITED)

    def may(self, scope: Scope) -> bool:
        """Whether the key has a scope."""
        return scope in self.scopes

    def may_run(self, model: str) -> bool:
        """Whether `owner/name` is on every allow-list."""
        return all(allows(globs, model) for globs in self.models)

    @property
    def may_run_anything(self) -> bool:
        """Whether no list keeps anything out."""
        return all(allows_everything(globs) for globs in self.models)

    def named_models(self) -> list[str]:
        """Return the models that the lists name exactly and that all lists allow."""
        named = dict.fromkeys(model for globs in self.models for model in exact_models(globs))
        return [model for model in named if self.may_run(model)]

    def owns(self, team: str) -> bool:
        """Whether work of that team is the caller's to see."""
        return team == self.team.name or Scope.ACCOUNT in self.scopes


def origin_bound(origins: Sequence[str] | None, origin: str | None) -> bool:
    """Whether a request may use what is bound to pages: a key, a ticket. One that names no page may not.

    `None`, and a list without entries, bind to nothing.
    """
    return not origins or (origin is not None and origin_allowed(origins, origin))


def origin_allowed(origins: Sequence[str], origin: str) -> bool:
    """Whether a page of this origin is on the list. `*` stands for every origin."""
    return "*" in origins or origin.lower() in origins
