"""Sessions of the console, in a signed cookie (JWT, RFC 7519, HS256). Nothing is stored.

A team's session names the key that it was opened with and becomes invalid with that key. An operators' session becomes
invalid when the operators' token changes, because the signing key is derived from that token.
"""

import hashlib
import hmac

import jwt

from gateway.access.authentication import AccessSettings, Authenticator
from gateway.domain.ports.clock import Clock
from gateway.domain.teams import Caller
from gateway.errors import Unauthenticated
from gateway.runtime.live import LiveSettings

TTL_SECONDS = 8 * 3600
"""One working day."""

_ALGORITHM = "HS256"
_AUDIENCE = "replicate-gateway-dashboard"
_OPERATORS = "operators"


class Sessions:
    """Opens and verifies sessions."""

    def __init__(
        self, secret: bytes, settings: LiveSettings[AccessSettings], authenticator: Authenticator, clock: Clock
    ) -> None:
        self._secret = secret
        self._settings = settings
        self._authenticator = authenticator
        self._clock = clock

    @property
    def _key(self) -> bytes:
        """Return the key of all signatures. It follows the ops token: another token ends every session."""
        return hmac.new(self._secret, (self._settings.value.ops_token or "").encode(), hashlib.sha256).digest()

    def open(self, caller: Caller | None) -> str:
        """Return the cookie of a new session: of a caller, or of the operators (`None`)."""
        claims: dict[str, object] = {"aud": _AUDIENCE, "exp": int(self._clock.now()) + TTL_SECONDS}
        if caller is None:
            claims["sub"] = _OPERATORS
        else:
            claims |= {"sub": "team", "team": caller.team.name, "key": caller.key_id}
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def form_token(self, cookie: str) -> str:
        """Return what a form of this session must send back. Without a session (`""`), it is the same for all.

        It protects from forms of other sites, which cannot read it.
        """
        return hmac.new(self._key, b"form " + cookie.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()

    async def read(self, cookie: str) -> Caller | None:
        """Return the caller of a session; `None` for an operators' session.

        Raise `Unauthenticated` if the cookie is invalid or expired, or if its key is no longer valid.
        """
        try:
            claims = jwt.decode(
                cookie,
                self._key,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                # Expiry is checked below, by the gateway's clock.
                options={"require": ["exp", "sub", "aud"], "verify_exp": False},
            )
        except jwt.InvalidTokenError as exc:
            raise Unauthenticated("The session is not valid.") from exc
        if claims["exp"] <= self._clock.now():
            raise Unauthenticated("The session has expired.")
        if claims["sub"] == _OPERATORS:
            return None
        return await self._authenticator.holder(str(claims.get("key")), str(claims.get("team")))
