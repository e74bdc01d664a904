"""Teams and callers, and the rights of a caller.

A caller's rights are those of its team, restricted by its key, and by its browser token if there is one. The
allow-lists of all three are kept separately and each must allow a target, so a key or token can never extend rights.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from operator import contains

import msgspec

from gateway.domain.limits import NO_LIMITS, UNLIMITED, Allowance, Limits, Subject, SubjectKind
from gateway.domain.scopes import Scope, patterns_of
from gateway.domain.tags import NONE, limited_as, pairs
from gateway.domain.targets import Target, allows, exact_models

NO_LIST = "All visitors share a key with origins, so it has no lists. Use a browser token for each visitor."


class Team(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant, from the config."""

    name: str
    scopes: frozenset[Scope]
    models: tuple[str, ...] = ("*",)
    origins: tuple[str, ...] = ()
    """The web origins that CORS allows."""
    listed_origins: tuple[str, ...] = ()
    """The origins that keys can be bound to; empty for any. `origins` has those of keys too, if the team lists none."""
    max_issued_keys: int = 1000
    """Valid keys that are created at run time."""
    may_assert_deterministic: bool = False
    honor_cache_control: bool = False
    unbound_tokens: bool = False
    """Whether browser tokens without origins can be minted."""
    public_sees_team: bool = False
    """Whether browser tokens see all predictions and files of the team, not only their own."""
    public_webhooks: bool = False
    """Whether web pages can have webhooks sent."""
    allowance: Allowance = NO_LIMITS
    per_tag: Mapping[str, Limits] = {}
    """Limits of each value of a cost tag, by the tag, and of one value, by `tag:value`, which replace those."""
    weight: float = 1.0
    """Share of the account's rates when teams compete, relative to other teams' weights."""
    max_wait_seconds: float = 20.0
    """How long a create over a rate is queued before it is refused."""
    aliases: Mapping[str, Target] = {}
    """What each alias stands for in the team's requests, by name. `models` has their targets already."""

    def without_aliases(self, models: Iterable[str]) -> tuple[str, ...]:
        """Return an allow-list with aliases replaced by the models or deployments that they stand for now."""
        if not self.aliases:
            return tuple(models)
        targets = ((model, self.aliases.get(model)) for model in models)
        return tuple(dict.fromkeys(target.model if target and target.model else model for model, target in targets))

    def limits_of_tags(self, tags: str) -> Iterator[Subject]:
        """Yield the values of tags, as `gateway.domain.tags` writes them, that have limits."""
        for key, value in pairs(tags):
            limits = self.per_tag.get(f"{key}:{value}", self.per_tag.get(key, UNLIMITED))
            if limits != UNLIMITED:
                yield Subject(SubjectKind.TAG, limited_as(self.name, key, value), limits, str(SubjectKind.TAG))


Teams = Mapping[str, Team]
"""Every team of the config by its name, in the config's order."""


class Caller(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The sender of a request: a team's key, or a browser token of the key.

    It serves many requests, so what they ask of it is computed once.
    """

    team: Team
    key_id: str
    key_name: str = ""
    scopes: frozenset[Scope]
    models: tuple[tuple[str, ...], ...]
    """Allow-lists of team, key and token. A target must be on each."""
    origins: tuple[str, ...] | None = None
    """The web origins that requests must come from, for publishable keys and tokens."""
    user: str | None = None
    is_public: bool = False
    """Whether it is a publishable key, a browser token or an external identity, used by a web page or an app. What that
    claims itself, such as the user in a header, is not trusted."""
    allowance: Allowance = NO_LIMITS
    """The key's limits, in addition to the team's."""
    token_id: str | None = None
    token_limits: Limits = UNLIMITED
    subject: str | None = None
    """Random identity of a browser token without a user. A renewed token has the same."""
    tags: str = NONE
    """The cost tags of a browser token's predictions (`gateway.domain.tags`)."""

    @cached_property
    def owner(self) -> str | None:
        """The owner of what the caller makes: its user, else its token's subject, else its key if that is publishable.

        `None` for a server's key without a user.
        """
        if self.user is not None:
            return owner_of_user(self.user)
        if self.token_id is not None:
            return f"token:{self.subject or self.token_id}"
        return f"key:{self.key_id}" if self.is_public else None

    @property
    def is_shared_by_visitors(self) -> bool:
        """Whether it is a publishable key, which all visitors of a page have: it has no lists."""
        return self.is_public and self.token_id is None and self.user is None

    @cached_property
    def sees_owner(self) -> str | None:
        """The owner whose predictions and files the caller sees; `None` for all of its team."""
        if not self.is_public or (self.team.public_sees_team and not self.is_shared_by_visitors):
            return None
        return self.owner

    @cached_property
    def counted_as(self) -> str:
        """The name under which the key, or the browser token, is counted."""
        return self.key_id if self.token_id is None else f"{self.key_id}#{self.token_id}"

    def subjects(self, user: str | None = None, address: str | None = None, tags: str = NONE) -> tuple[Subject, ...]:
        """Return the subjects that count a request of this user, address and cost tags, without unlimited ones.

        The widest come first; those of tags are last.
        Pass `address` only for public callers.
        """
        team, key = self.team, self.key_id
        counted = [
            (SubjectKind.TEAM, team.name, team.allowance.own, "team"),
            (SubjectKind.KEY, key, self.allowance.own, "key"),
        ]
        if self.token_id is not None:
            counted.append((SubjectKind.KEY, self.counted_as, self.token_limits, "token"))
        for of, name, of_team, of_key in (
            (SubjectKind.USER, user, team.allowance.per_user, self.allowance.per_user),
            (SubjectKind.ADDRESS, address, team.allowance.per_address, self.allowance.per_address),
        ):
            if name is not None:
                counted.append((of, f"team {team.name}: {name}", of_team, str(of)))
                counted.append((of, f"key {key}: {name}", of_key, f"key-{of}"))
        subjects = []
        for of, name, limits, label in counted:
            if limits != UNLIMITED:
                subjects.append(Subject(of, name, limits, label))
        return (*subjects, *(self.team.limits_of_tags(tags) if self.team.per_tag else ()))

    def may(self, scope: Scope) -> bool:
        """Return whether the caller has a scope."""
        return scope in self.scopes

    def may_run(self, model: str) -> bool:
        """Return whether every allow-list contains `owner/name`."""
        return all(allows(globs, model) for globs in self.models)

    @cached_property
    def may_run_anything(self) -> bool:
        """Whether every allow-list allows everything."""
        return all(map(contains, self.models, repeat("*")))

    def named_models(self) -> list[str]:
        """Return the models that a list names without wildcards and that all lists allow."""
        named = dict.fromkeys(model for globs in self.models for model in exact_models(globs))
        return [model for model in named if self.may_run(model)]

    def owns(self, team: str) -> bool:
        """Return whether the caller can see a team's runs and usage."""
        return team == self.team.name or Scope.ACCOUNT in self.scopes

    def may_see(self, team: str, owner: str | None) -> bool:
        """Return whether the caller can see a prediction or file of a team and an owner in it."""
        return self.owns(team) and self.sees_owner in (None, owner)


def owner_of_user(user: str) -> str:
    """Return the owner of what is made for a user. Its prefix keeps users apart from tokens and keys."""
    return f"user:{user}"


def origin_bound(origins: Sequence[str] | None, origin: str | None) -> bool:
    """Return whether a request with this Origin can use a key or ticket that is restricted to `origins`.

    Without restriction (`None` or empty) every request can. With one, a request without an Origin header cannot.
    """
    return not origins or (origin is not None and origin_allowed(origins, origin))


def origin_allowed(origins: Collection[str], origin: str) -> bool:
    """Return whether a list contains an origin. `*` matches every origin."""
    return "*" in origins or origin_listed(origins, origin)


def origin_listed(origins: Collection[str], origin: str) -> bool:
    """Return whether a list names an origin, or has a pattern such as `https://*.example.com` for it.

    A pattern matches any number of labels before its domain, with exactly its scheme and port, and not the domain.
    """
    lowered = origin.lower()
    return lowered in origins or any(pattern in origins for pattern in patterns_of(lowered))
