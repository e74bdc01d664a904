"""Verify the tokens of issuers: who signed in elsewhere and calls with a JWT.

A verified token is remembered by its SHA-256 until it expires or the key that verified it is withdrawn, because a
signature takes longer to verify than a poll takes to answer.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.access.issuer_keys import IssuerKeys
from gateway.access.rules import api_keys, issuers, json_web_tokens, sign_in
from gateway.access.rules.issuers import ExternalIdentity, Issuer, IssuerSettings
from gateway.access.rules.json_web_keys import PublicKey
from gateway.access.rules.json_web_tokens import Reason, TokenRefusal, UnverifiedToken
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import IdentityObserver
from gateway.errors import IssuerUnavailable, Unauthenticated
from gateway.runtime.live import LiveSettings

RETRY_SECONDS = 10
"""When to ask again for what an issuer that is away would decide."""


class _Verified(msgspec.Struct, frozen=True):
    identity: ExternalIdentity
    key: PublicKey


class ExternalIdentities:
    """Maps tokens to identities."""

    def __init__(
        self, settings: LiveSettings[IssuerSettings], keys: IssuerKeys, clock: Clock, observer: IdentityObserver
    ) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._observer = observer
        self._verified: dict[str, _Verified] = {}
        settings.subscribe(lambda _: self._verified.clear())

    @property
    def remembered(self) -> int:
        """Number of verified tokens in memory."""
        return len(self._verified)

    def concerns(self, presented: str) -> bool:
        """Return whether a credential is to be read as a token: there are issuers, and it looks like one."""
        return bool(self._settings.value.issuers) and json_web_tokens.looks_like_one(presented)

    async def identify(self, presented: str) -> ExternalIdentity:
        """Return whom a token names. Raise `Unauthenticated`, or `IssuerUnavailable`."""
        found = await self._identify(presented)
        if isinstance(found, ExternalIdentity):
            return found
        self._observer.token_refused(found.reason)
        if found.reason is Reason.KEYS_UNAVAILABLE:
            raise IssuerUnavailable(found.detail, retry_after=RETRY_SECONDS)
        raise Unauthenticated(found.detail)

    async def _identify(self, presented: str) -> ExternalIdentity | TokenRefusal:
        settings = self._settings.value
        if len(presented) > settings.max_token_bytes:
            return TokenRefusal(Reason.TOO_LONG, f"This token is longer than {settings.max_token_bytes} bytes.")
        digest = api_keys.digest(presented)
        if (known := self._recall(digest)) is not None:
            return known
        found = await self._verify(presented, settings)
        if isinstance(found, TokenRefusal):
            return found
        if settings is not self._settings.value:
            # The config was reloaded meanwhile.
            return await self._identify(presented)
        self._remember(digest, found)
        return found.identity

    def _recall(self, digest: str) -> ExternalIdentity | None:
        known = self._verified.get(digest)
        if known is None:
            return None
        identity = known.identity
        if self._clock.now() < identity.ends_at and self._keys.is_current(identity.issuer, known.key):
            return identity
        del self._verified[digest]
        return None

    def _remember(self, digest: str, verified: _Verified) -> None:
        while self._verified and len(self._verified) >= self._settings.value.max_cached_tokens:
            del self._verified[next(iter(self._verified))]  # the oldest
        self._verified[digest] = verified

    async def _verify(self, presented: str, settings: IssuerSettings) -> _Verified | TokenRefusal:
        token = json_web_tokens.read(presented)
        if isinstance(token, TokenRefusal):
            return token
        issuer = issuers.issuer_of(settings.issuers, token.claims)
        if isinstance(issuer, TokenRefusal):
            return issuer
        key = await self._key_of(token, issuer)
        if isinstance(key, TokenRefusal):
            return key
        identity = issuers.identify(issuer, token.claims)
        return identity if isinstance(identity, TokenRefusal) else _Verified(identity, key)

    async def _key_of(self, token: UnverifiedToken, issuer: Issuer) -> PublicKey | TokenRefusal:
        """Return the key of the issuer that verifies a token, whose times are valid too."""
        if token.algorithm not in issuer.algorithms:
            accepted = ", ".join(sorted(issuer.algorithms))
            return TokenRefusal(Reason.ALGORITHM, f"This token is not signed with an accepted algorithm ({accepted}).")
        # Before the key is looked for: an expired token does not make the gateway read keys.
        if (refusal := issuers.check_times(issuer, token.claims, self._clock.now())) is not None:
            return refusal
        key = await self._keys.find(issuer, token.key_id, token.algorithm)
        if isinstance(key, TokenRefusal):
            return key
        if not json_web_tokens.has_valid_signature(token, key.key):
            return TokenRefusal(Reason.SIGNATURE, "The signature of this token is not valid.")
        return key

    async def verify_id_token(self, presented: str, issuer: Issuer, nonce: str) -> Mapping[str, Any] | TokenRefusal:
        """Return the claims of an ID token that answers a sign-in to the console at an issuer."""
        assert issuer.console is not None
        if len(presented) > (longest := self._settings.value.max_token_bytes):
            return TokenRefusal(Reason.TOO_LONG, f"The ID token is longer than {longest} bytes.")
        token = json_web_tokens.read(presented)
        if isinstance(token, TokenRefusal):
            return token
        refusal = sign_in.check_id_token(issuer, issuer.console.client_id, nonce, token.claims)
        if refusal is not None:
            return refusal
        key = await self._key_of(token, issuer)
        return key if isinstance(key, TokenRefusal) else token.claims
