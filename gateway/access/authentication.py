"""Who is asking: keys of the config, keys of the store, browser tokens.

A key of the store is looked up again after half a second, so that revocation, expiry and rotation, which another
process writes, take effect within a second, and a busy key costs two reads a second.
"""

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from cachetools import TTLCache

from gateway.access.browser_tokens import TOKEN_PREFIX, BrowserToken, TokenService
from gateway.access.rules import api_keys
from gateway.domain.limits import NO_LIMITS, UNLIMITED, Allowance
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.records import Keys
from gateway.domain.records import Key
from gateway.domain.scopes import Scope, narrow
from gateway.domain.teams import Caller, Team, origin_bound
from gateway.errors import Forbidden, Unauthenticated

KEY_TTL_SECONDS = 0.5
# A caller that is known is not looked up at all for this long; the two together stay below a second.
CALLER_TTL_SECONDS = 0.25
_SCHEMES = ("bearer", "token")


class _NotLookedUp(Enum):
    """Told from `None`, which is a key that there is not."""

    NOT_LOOKED_UP = "not looked up"


_NOT_LOOKED_UP = _NotLookedUp.NOT_LOOKED_UP


class _Known(NamedTuple):
    """A caller, and the time at which the key or token ends."""

    caller: Caller
    until: float


def _end_of(key: Key) -> float:
    return min((end for end in (key.expires_at, key.revoked_at) if end is not None), default=math.inf)


class Authenticator:
    """Turns the `Authorization` header of a request into a `Caller`."""

    def __init__(
        self,
        teams: Sequence[Team],
        config_keys: Sequence[Key],
        store: Keys,
        tokens: TokenService,
        clock: Clock,
        *,
        allowances: Mapping[str, Allowance] | None = None,
        max_cached: int = 10_000,
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._clock = clock
        self._callers: TTLCache[tuple[str, str | None], _Known] = TTLCache(
            max_cached, CALLER_TTL_SECONDS, timer=clock.monotonic
        )
        self._looked_up: TTLCache[str, Key | None] = TTLCache(max_cached, KEY_TTL_SECONDS, timer=clock.monotonic)
        self.reconfigure(teams, config_keys, allowances or {})

    def reconfigure(
        self, teams: Sequence[Team], config_keys: Sequence[Key], allowances: Mapping[str, Allowance]
    ) -> None:
        """Know other teams and keys of the config, from the next request on."""
        self._allowances = allowances
        self._teams: Mapping[str, Team] = {team.name: team for team in teams}
        self._by_digest: Mapping[str, Key] = {key.sha256: key for key in config_keys}
        self._config_keys: Mapping[str, Key] = {key.id: key for key in config_keys}
        self._callers.clear()

    async def authenticate(self, authorization: str | None, origin: str | None) -> Caller:
        """Say who sent a request. Raise `Unauthenticated`, or `Forbidden` for a page that the key is not for."""
        if not authorization:
            raise Unauthenticated("You did not pass an authentication token")
        known = self._callers.get((authorization, origin))
        if known is None or self._clock.now() >= known.until:
            known = self._callers[authorization, origin] = await self._authenticate(authorization, origin)
        return known.caller

    def owner(self, team: str, key_id: str) -> Caller | None:
        """Return under whom work of a team's key is counted: its rights are none; `None` once the team is gone."""
        known = self._teams.get(team)
        if known is None:
            return None
        allowance = self._allowances.get(key_id, NO_LIMITS)
        return Caller(team=known, key_id=key_id, scopes=frozenset(), models=(), allowance=allowance)

    async def holder(self, key_id: str, team: str) -> Caller:
        """Return the caller that a key makes, for whoever has shown it before. Raise `Unauthenticated` once it ends."""
        return self._caller(await self._valid(key_id, team))

    async def _authenticate(self, authorization: str, origin: str | None) -> _Known:
        scheme, _, presented = authorization.partition(" ")
        presented = presented.strip()
        if scheme.lower() not in _SCHEMES or not presented:
            raise Unauthenticated("You did not pass a valid authentication token")
        if presented.startswith(TOKEN_PREFIX):
            token = self._tokens.read(presented)
            key = await self._valid(token.key_id, token.team)
            caller, until = self._narrowed(self._caller(key), token), min(token.expires_at, _end_of(key))
        else:
            key = await self._key(presented)
            caller, until = self._caller(key), _end_of(key)
        if not origin_bound(caller.origins, origin):
            raise Forbidden("This key may be used from the pages it was issued for only.")
        return _Known(caller, until)

    async def _key(self, presented: str) -> Key:
        key = self._by_digest.get(api_keys.digest(presented))
        if key is None and (key_id := api_keys.parse(presented)) is not None:
            key = await self._stored(key_id)
            if key is not None and not api_keys.matches(presented, key.sha256):
                key = None
        if key is None or not api_keys.is_valid(key, self._clock.now()):
            raise Unauthenticated("You did not pass a valid authentication token")
        return key

    async def _stored(self, key_id: str) -> Key | None:
        # One look: between two the entry may run out.
        found = self._looked_up.get(key_id, _NOT_LOOKED_UP)
        if not isinstance(found, _NotLookedUp):
            return found
        key = self._looked_up[key_id] = await self._store.key(key_id)
        return key

    async def _valid(self, key_id: str, team: str) -> Key:
        """Return a key by its id, as long as it is valid: a token, or a session, is good for as long as its key is."""
        key = self._config_keys.get(key_id) or await self._stored(key_id)
        if key is None or key.team != team or not api_keys.is_valid(key, self._clock.now()):
            raise Unauthenticated("You did not pass a valid authentication token")
        return key

    def _caller(self, key: Key) -> Caller:
        team = self._teams.get(key.team)
        if team is None:
            raise Unauthenticated("You did not pass a valid authentication token")
        return Caller(
            team=team,
            key_id=key.id,
            key_name=key.name,
            scopes=narrow(team.scopes, key.scopes),
            models=(team.models, key.models) if key.models is not None else (team.models,),
            origins=key.origins or None,
            is_public=bool(key.origins),
            allowance=self._allowances.get(key.id, NO_LIMITS),
        )

    def _narrowed(self, caller: Caller, token: BrowserToken) -> Caller:
        return Caller(
            team=caller.team,
            key_id=caller.key_id,
            key_name=caller.key_name,
            scopes=narrow(caller.scopes, token.scopes) - {Scope.TOKENS},
            models=(*caller.models, token.models) if token.models is not None else caller.models,
            origins=token.origins or caller.origins,
            user=token.user,
            is_public=True,
            allowance=caller.allowance,
            token_id=token.jti,
            token_limits=token.limits.as_limits() if token.limits is not None else UNLIMITED,
        )
