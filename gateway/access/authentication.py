"""Authenticate requests by keys from the config, keys from the store, browser tokens, and tokens of issuers.

Keys from the store are cached for half a second. So revocation, expiry and rotation, which the command line writes from
another process, take effect within a second, and a busy key costs two reads per second.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from typing import NamedTuple

import msgspec
from cachetools import TTLCache

from gateway.access.browser_tokens import NEVER_PUBLIC, TOKEN_PREFIX, BrowserToken, TokenService
from gateway.access.external_identities import ExternalIdentities
from gateway.access.rules import api_keys
from gateway.access.rules.grants import NEVER_GRANTED
from gateway.access.rules.issuers import ExternalIdentity, Issuer
from gateway.access.rules.json_web_tokens import looks_like_one
from gateway.domain import tags
from gateway.domain.limits import NO_LIMITS, UNLIMITED, Allowance
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.records import Keys
from gateway.domain.records import Key
from gateway.domain.scopes import DEFAULT_SCOPES, Scope, narrow
from gateway.domain.teams import Caller, Teams, origin_bound
from gateway.errors import Forbidden, StoreUnavailable, Unauthenticated
from gateway.runtime.live import LiveSettings

KEY_TTL_SECONDS = 0.5
# Authenticated callers are cached for this long on top of that. Both together stay below a second.
CALLER_TTL_SECONDS = 0.25
_LONGEST_CACHED = 2048
"""Callers choose the `Origin` of a server's key: a longer one is authenticated each time."""
_SCHEMES = ("bearer", "token")
_UNKNOWN = "You did not pass a valid authentication token"
_REPLICATE_PREFIX = "r8_"
_IS_REPLICATES = f"{_UNKNOWN}: this is a token of Replicate (r8_…). Use a key of this gateway (rgw_…)."

_IS_JWT = f"{_UNKNOWN}: this is a JSON Web Token, and the gateway's config has no [[issuers]] whose tokens it accepts."
_ELSEWHERE = "This key or token only works from its allowed origins (add yours to its `origins`)."
_IN_NO_PAGE = (
    "This key or token only works from its allowed origins: in web pages, not in other programs. Those need a key of "
    "the team that is not bound to origins."
)


class AccessSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Who may use the gateway, as far as the config says so."""

    keys: Mapping[str, Key] = {}
    """The keys of the config by their ids."""
    allowances: Mapping[str, Allowance] = {}
    """The limits of those keys by their ids, and those of issuers by `Issuer.key_id`. Without limits they are left
    out."""
    ops_token: str | None = None
    """What operators present to the ops listener."""


class _NotLookedUp(Enum):
    """Marks a missing cache entry. `None` means that the key does not exist."""

    NOT_LOOKED_UP = "not looked up"


_NOT_LOOKED_UP = _NotLookedUp.NOT_LOOKED_UP


class Known(NamedTuple):
    """An authenticated caller."""

    caller: Caller
    presented: bytes
    """The key or token, encoded."""
    fresh_until: float
    """Until when this may be used again, by the monotonic clock."""


def _end_of(key: Key) -> float:
    return min((end for end in (key.expires_at, key.revoked_at) if end is not None), default=math.inf)


def _by_digest(settings: AccessSettings) -> Mapping[str, Key]:
    return {key.sha256: key for key in settings.keys.values()}


class Authenticator:
    """Maps the `Authorization` header of a request to a `Caller`."""

    def __init__(
        self,
        teams: LiveSettings[Teams],
        settings: LiveSettings[AccessSettings],
        store: Keys,
        tokens: TokenService,
        clock: Clock,
        identities: ExternalIdentities | None = None,
        *,
        on_used: Callable[[str], None] = lambda _: None,
        max_cached: int = 10_000,
    ) -> None:
        """Take `on_used`, which is called with the id of a key when it or a token of it is used."""
        self._on_used = on_used
        self._teams = teams
        self._settings = settings
        self._store = store
        self._tokens = tokens
        self._clock = clock
        self._identities = identities
        # Not a TTLCache: each of its look-ups costs eight calls, and every request has one.
        self._callers: dict[tuple[str | None, str | None], Known] = {}
        self._max_cached = max_cached
        self._looked_up: TTLCache[str, Key | None] = TTLCache(max_cached, KEY_TTL_SECONDS, timer=clock.monotonic)
        self._by_digest = _by_digest(settings.value)
        # A caller is made of its team and its key.
        teams.subscribe(lambda _: self._callers.clear())
        settings.subscribe(self._apply)

    def _apply(self, settings: AccessSettings) -> None:
        self._by_digest = _by_digest(settings)
        self._callers.clear()

    async def authenticate(self, authorization: str | None, origin: str | None) -> Caller:
        """Return the caller of a request. Raise `Unauthenticated`; `Forbidden` if the key does not allow the origin."""
        known = self.recall(authorization, origin) or await self.identify(authorization, origin)
        return known.caller

    def recall(self, authorization: str | None, origin: str | None) -> Known | None:
        """Return the caller if it was identified a moment ago."""
        known = self._callers.get((authorization, origin))
        return None if known is None or self._clock.monotonic() >= known.fresh_until else known

    async def identify(self, authorization: str | None, origin: str | None) -> Known:
        """Return the caller of a request that `recall` does not know. Raise as `authenticate` does."""
        if not authorization:
            raise Unauthenticated("You did not pass an authentication token")
        presented = authorization.partition(" ")[2].strip()
        caller, until = await self._authenticate(authorization, origin)
        fresh_until = self._clock.monotonic() + min(CALLER_TTL_SECONDS, until - self._clock.now())
        known = Known(caller, presented.encode("utf-8", "surrogateescape"), fresh_until)
        self._on_used(caller.key_id)
        if len(authorization) + len(origin or "") <= _LONGEST_CACHED:
            if len(self._callers) >= self._max_cached:
                self._forget_stale()
            self._callers[authorization, origin] = known
        return known

    def _forget_stale(self) -> None:
        """Make room: forget what is not fresh, or everything, if all of it is. Looking it up again costs little."""
        now = self._clock.monotonic()
        self._callers = {asked: known for asked, known in self._callers.items() if now < known.fresh_until}
        if len(self._callers) >= self._max_cached:
            self._callers.clear()

    def forget(self, key_ids: Sequence[str] | None) -> None:
        """Read these keys again before they are used next, because they have changed; all keys for `None`."""
        if key_ids is None:
            self._callers.clear()
            self._looked_up.clear()
            return
        for key_id in key_ids:
            self._looked_up.pop(key_id, None)
        changed = set(key_ids)
        self._callers = {asked: known for asked, known in self._callers.items() if known.caller.key_id not in changed}

    async def owner(self, team: str, key_id: str) -> Caller | None:
        """Return a caller without rights, to count a key's usage; `None` if the config has no such team."""
        known = self._teams.value.get(team)
        if known is None:
            return None
        allowance = self._settings.value.allowances.get(key_id)
        key = self._settings.value.keys.get(key_id)
        if allowance is None and key is None:
            # Without the store only the team's limits count: what needs no store goes on.
            with suppress(StoreUnavailable):
                key = await self._stored(key_id)
                allowance = None if key is None or key.team != team else key.allowance
        allowance = allowance or NO_LIMITS
        name = key.name if key is not None and key.team == team else ""
        return Caller(team=known, key_id=key_id, key_name=name, scopes=frozenset(), models=(), allowance=allowance)

    async def holder(self, key_id: str, team: str) -> Caller:
        """Return the caller of a key that was presented before. Raise `Unauthenticated` if it is no longer valid."""
        return self._caller(await self._valid(key_id, team))

    def lead(self, issuer: Issuer, team_name: str) -> Caller:
        """Return somebody who leads a team, as an issuer says. Raise `Unauthenticated` if the team has gone.

        It can look after the keys of its team also where no key of the team can, and has no right beyond its team.
        """
        team = self._teams.value.get(team_name)
        if team is None:
            raise Unauthenticated("Your team is no longer in the gateway's config.")
        return Caller(
            team=team,
            key_id=issuer.key_id(team.name),
            key_name=issuer.name,
            scopes=(team.scopes - NEVER_GRANTED) | {Scope.KEYS},
            models=(team.models,),
        )

    async def _authenticate(self, authorization: str, origin: str | None) -> tuple[Caller, float]:
        """Return the caller, and the time at which its key or token becomes invalid."""
        scheme, _, presented = authorization.partition(" ")
        presented = presented.strip()
        if scheme.lower() not in _SCHEMES or not presented:
            raise Unauthenticated(_UNKNOWN)
        if presented.startswith(TOKEN_PREFIX):
            token = self._tokens.read(presented)
            key = await self._valid(token.key_id, token.team)
            caller, until = self._narrowed(self._caller(key), token), min(token.expires_at, _end_of(key))
        elif self._is_of_issuer(presented):
            assert self._identities is not None
            identity = await self._identities.identify(presented)
            caller, until = self._external(identity), identity.ends_at
        else:
            key = await self._key(presented)
            caller, until = self._caller(key), _end_of(key)
        if not origin_bound(caller.origins, origin):
            raise Forbidden(_IN_NO_PAGE if origin is None else _ELSEWHERE)
        return caller, until

    def _is_of_issuer(self, presented: str) -> bool:
        """Return whether a credential is a JWT, and not a key of the config that looks like one."""
        if self._identities is None or not self._identities.concerns(presented):
            return False
        return api_keys.digest(presented) not in self._by_digest

    async def _key(self, presented: str) -> Key:
        key = self._by_digest.get(api_keys.digest(presented))
        if key is None and (key_id := api_keys.parse(presented)) is not None:
            key = await self._stored(key_id)
            if key is not None and not api_keys.matches(presented, key.sha256):
                key = None
        if key is None:
            raise Unauthenticated(_unknown(presented))
        # From here on the caller holds the right secret, so it may learn what is wrong with the key.
        self._check_validity(key, "This key")
        return key

    def _check_validity(self, key: Key, whose: str) -> None:
        """Raise `Unauthenticated` if a key is revoked or expired, for a caller who has proved to hold it."""
        now = self._clock.now()
        if key.revoked_at is not None and now >= key.revoked_at:
            raise Unauthenticated(f"{whose} was revoked. Use another key of your team.")
        if key.expires_at is not None and now >= key.expires_at:
            raise Unauthenticated(f"{whose} has expired. Use another key of your team.")

    async def _stored(self, key_id: str) -> Key | None:
        # Read the cache once: with `in` and `[]` the entry could expire in between.
        found = self._looked_up.get(key_id, _NOT_LOOKED_UP)
        if not isinstance(found, _NotLookedUp):
            return found
        key = self._looked_up[key_id] = await self._store.key(key_id)
        return key

    async def _valid(self, key_id: str, team: str) -> Key:
        """Return a valid key by its id. Used for tokens and sessions, which are valid only while their key is.

        These are signed, so their holder may learn what is wrong with the key.
        """
        key = self._settings.value.keys.get(key_id) or await self._stored(key_id)
        if key is None or key.team != team:
            raise Unauthenticated(_UNKNOWN)
        self._check_validity(key, "The key that this was made with")
        return key

    def _caller(self, key: Key) -> Caller:
        team = self._teams.value.get(key.team)
        if team is None:
            raise Unauthenticated("The team of this key is no longer in the gateway's config.")
        scopes = narrow(team.scopes, key.scopes)
        return Caller(
            team=team,
            key_id=key.id,
            key_name=key.name,
            # A page that mints tokens could name any user in them; the other scopes see more than its own.
            scopes=scopes - NEVER_PUBLIC if key.origins else scopes,
            models=(team.models, team.without_aliases(key.models)) if key.models is not None else (team.models,),
            origins=key.origins or None,
            is_public=bool(key.origins),
            allowance=self._settings.value.allowances.get(key.id) or key.allowance or NO_LIMITS,
        )

    def _narrowed(self, caller: Caller, token: BrowserToken) -> Caller:
        return Caller(
            team=caller.team,
            key_id=caller.key_id,
            key_name=caller.key_name,
            scopes=narrow(caller.scopes, token.scopes) - NEVER_PUBLIC,
            models=(*caller.models, caller.team.without_aliases(token.models))
            if token.models is not None
            else caller.models,
            origins=token.origins or caller.origins,
            user=token.user,
            is_public=True,
            allowance=caller.allowance,
            token_id=token.jti,
            subject=token.subject,
            tags=token.tags or tags.NONE,
            token_limits=token.limits.as_limits() if token.limits is not None else UNLIMITED,
        )

    def _external(self, identity: ExternalIdentity) -> Caller:
        """Return the caller that an issuer vouches for. It acts for its user only, like a browser token."""
        issuer, team = identity.issuer, self._teams.value.get(identity.team)
        if team is None:
            raise Unauthenticated("The team of this token is no longer in the gateway's config.")
        origins = None if issuer.is_native else issuer.origins or team.origins
        if origins is not None and not origins:
            raise Forbidden("Neither the issuer of this token nor its team has origins in the gateway's config.")
        allowed = DEFAULT_SCOPES if issuer.scopes is None else issuer.scopes
        scopes = narrow(narrow(team.scopes, allowed), identity.scopes) - NEVER_PUBLIC
        key_id = issuer.key_id(team.name)
        return Caller(
            team=team,
            key_id=key_id,
            key_name=issuer.name,
            scopes=scopes,
            models=(team.models, team.without_aliases(issuer.models)) if issuer.models is not None else (team.models,),
            origins=origins,
            user=identity.user,
            is_public=True,
            allowance=self._settings.value.allowances.get(key_id, NO_LIMITS),
        )


def _unknown(presented: str) -> str:
    """Return why a credential is refused that is no key and, if there are issuers, no token of theirs."""
    if presented.startswith(_REPLICATE_PREFIX):
        return _IS_REPLICATES
    return _IS_JWT if looks_like_one(presented) else _UNKNOWN
