"""Sessions of the console, in a signed cookie (JWT, RFC 7519, HS256). Nothing is stored.

A team's session names the key that it was opened with and becomes invalid with that key. The session of somebody whom
an issuer signed in names what gave the role, and becomes invalid when the config no longer has it. Every session
becomes invalid when the operators' token changes, because the signing key is derived from that token.
"""

import hashlib
import hmac

import msgspec

from gateway.access.authentication import AccessSettings, Authenticator
from gateway.access.rules import console_cookies, console_roles
from gateway.access.rules.console_cookies import ExpiredCookie, InvalidCookie
from gateway.access.rules.console_roles import Person
from gateway.access.rules.issuers import IssuerSettings
from gateway.domain.audit import BY_OPERATORS, Actor, by_key
from gateway.domain.ports.clock import Clock
from gateway.domain.teams import Caller
from gateway.errors import Unauthenticated
from gateway.runtime.live import LiveSettings

TTL_SECONDS = 8 * 3600
"""One working day."""

_AUDIENCE = "replicate-gateway-dashboard"
_OPERATORS = "operators"
_PERSON = "person"
_NO_ISSUERS = LiveSettings(IssuerSettings())


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """Who looks at the console."""

    caller: Caller | None = None
    """A member of a team; `None` for an operator."""
    user: str | None = None
    """The person, if an issuer signed it in."""

    @property
    def team(self) -> str | None:
        """The team that the viewer sees; `None` for all."""
        return None if self.caller is None else self.caller.team.name

    @property
    def leads_team(self) -> bool:
        """Whether an issuer says that the viewer leads its team: no key gives the rights."""
        return self.caller is not None and self.user is not None

    @property
    def actor(self) -> Actor:
        """The viewer in the audit log."""
        if self.user is not None:
            return Actor(f"issuer:{self.user}")
        return BY_OPERATORS if self.caller is None else by_key(self.caller.key_id)


class Sessions:
    """Opens and verifies sessions."""

    def __init__(
        self,
        secret: bytes,
        settings: LiveSettings[AccessSettings],
        authenticator: Authenticator,
        clock: Clock,
        issuers: LiveSettings[IssuerSettings] = _NO_ISSUERS,
    ) -> None:
        self._secret = secret
        self._settings = settings
        self._authenticator = authenticator
        self._clock = clock
        self._issuers = issuers

    @property
    def _key(self) -> bytes:
        return console_cookies.key_of(self._secret, self._settings.value.ops_token)

    def open(self, caller: Caller | None) -> str:
        """Return the cookie of a new session: of a caller, or of the operators (`None`)."""
        if caller is None:
            return self._sealed({"sub": _OPERATORS})
        return self._sealed({"sub": "team", "team": caller.team.name, "key": caller.key_id})

    def open_for(self, person: Person) -> str:
        """Return the cookie of a new session of somebody whom an issuer signed in."""
        return self._sealed({"sub": _PERSON, "person": msgspec.to_builtins(person)})

    def _sealed(self, claims: dict[str, object]) -> str:
        return console_cookies.seal(claims, _AUDIENCE, self._key, int(self._clock.now()) + TTL_SECONDS)

    def form_token(self, cookie: str) -> str:
        """Return what a form of this session must send back. Without a session (`""`), it is the same for all.

        It protects from forms of other sites, which cannot read it.
        """
        return hmac.new(self._key, b"form " + cookie.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()

    async def read(self, cookie: str) -> Viewer:
        """Return whose session it is.

        Raise `Unauthenticated` if the cookie is invalid or expired, or if what it was opened with is no longer valid.
        """
        try:
            claims = console_cookies.unseal(cookie, _AUDIENCE, self._key, self._clock.now(), "sub")
        except ExpiredCookie as exc:
            raise Unauthenticated("The session has expired.") from exc
        except InvalidCookie as exc:
            raise Unauthenticated("The session is not valid.") from exc
        if claims["sub"] == _OPERATORS:
            return Viewer()
        if claims["sub"] == _PERSON:
            return self._viewer(claims.get("person"))
        return Viewer(caller=await self._authenticator.holder(str(claims.get("key")), str(claims.get("team"))))

    def _viewer(self, given: object) -> Viewer:
        """Return somebody whom an issuer signed in, if the config still says what the claims gave."""
        try:
            person = msgspec.convert(given, Person)
        except msgspec.ValidationError as exc:
            # Of another version of the gateway.
            raise Unauthenticated("The session is not valid.") from exc
        issuer = console_roles.named(self._issuers.value.issuers, person.issuer)
        if issuer is None or not console_roles.still_allows(issuer, person):
            raise Unauthenticated("The session is no longer valid: the config has changed. Sign in again.")
        if person.team is None:
            return Viewer(user=person.user)
        return Viewer(caller=self._authenticator.lead(issuer, person.team), user=person.user)
