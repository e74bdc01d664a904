"""People sign in to the console at issuers: authorization code flow with PKCE. See docs/identities.md.

Nothing is stored. What a browser must bring back is in a cookie (`rules/sign_in_attempts.py`).
"""

import logging
import secrets
from collections.abc import Mapping

import msgspec
from cachetools import TTLCache

from gateway.access.authentication import AccessSettings
from gateway.access.external_identities import RETRY_SECONDS, ExternalIdentities
from gateway.access.issuer_endpoints import IssuerEndpoints
from gateway.access.ports import KeysUnread, SignInSource
from gateway.access.rules import console_cookies, console_roles, sign_in, sign_in_attempts
from gateway.access.rules.console_roles import Person
from gateway.access.rules.discovery import Endpoints
from gateway.access.rules.issuers import Issuer, IssuerSettings
from gateway.access.rules.json_web_tokens import Reason, TokenRefusal
from gateway.access.rules.sign_in import Outcome, SignInRefusal
from gateway.access.rules.sign_in_attempts import TTL_SECONDS, SignInAttempt
from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import IdentityObserver
from gateway.errors import Forbidden, IssuerUnavailable, NotFound
from gateway.runtime.live import LiveSettings

logger = logging.getLogger(__name__)

_NOT_STARTED = (
    "This sign-in was not started in this browser, was started more than ten minutes ago, or has ended. Try again."
)
_MOST_USED = 10_000


class StartedSignIn(msgspec.Struct, frozen=True):
    """Where the browser goes, and the cookie that it must bring back."""

    url: str
    cookie: str


class ConsoleSignIn:
    """Signs people in at the issuers that have a table `console`."""

    def __init__(
        self,
        secret: bytes,
        settings: LiveSettings[IssuerSettings],
        access: LiveSettings[AccessSettings],
        source: SignInSource,
        identities: ExternalIdentities,
        clock: Clock,
        observer: IdentityObserver,
    ) -> None:
        self._secret = secret
        self._settings = settings
        self._access = access
        self._source = source
        self._endpoints = IssuerEndpoints(settings, source, clock)
        self._identities = identities
        self._clock = clock
        self._observer = observer
        self._used: TTLCache[str, None] = TTLCache(_MOST_USED, TTL_SECONDS, timer=clock.monotonic)
        """The states of ended attempts. The issuer takes each code once, too."""

    @property
    def issuers(self) -> list[str]:
        """The names of the issuers at which people sign in."""
        return [issuer.name for issuer in self._settings.value.issuers if issuer.console is not None]

    @property
    def _key(self) -> bytes:
        return console_cookies.key_of(self._secret, self._access.value.ops_token)

    async def start(self, name: str, redirect_uri: str, asked: str) -> StartedSignIn:
        """Start a sign-in at an issuer, for the page `asked`. Raise `NotFound` or `IssuerUnavailable`."""
        issuer = console_roles.named(self._settings.value.issuers, name)
        if issuer is None or issuer.console is None:
            raise NotFound("No issuer of that name is configured for signing in to the console.")
        endpoints = await self._endpoints_of(issuer)
        key = self._key
        attempt = SignInAttempt(issuer=name, state=secrets.token_urlsafe(32), next=sign_in.page_after(asked))
        url = sign_in.authorization_url(
            endpoints.authorization,
            issuer.console,
            redirect_uri,
            state=attempt.state,
            nonce=sign_in_attempts.nonce_of(attempt.state, key),
            verifier=sign_in_attempts.verifier_of(attempt.state, key),
        )
        return StartedSignIn(url, sign_in_attempts.seal(attempt, key, self._clock.now()))

    async def finish(self, name: str, cookie: str, query: Mapping[str, str], redirect_uri: str) -> tuple[Person, str]:
        """Return who signed in, and the page to open. Raise `Forbidden` or `IssuerUnavailable`.

        `name` is the issuer at whose `redirect_uri` the browser came back, `cookie` what it kept since the start, and
        `query` the answer.
        """
        attempt = sign_in_attempts.unseal(cookie, self._key, self._clock.now())
        issuer = None if attempt is None else console_roles.named(self._settings.value.issuers, attempt.issuer)
        if attempt is None or issuer is None or attempt.issuer != name or attempt.state in self._used:
            raise Forbidden(_NOT_STARTED)
        self._used[attempt.state] = None
        found = await self._person(attempt, issuer, query, redirect_uri)
        if isinstance(found, Person):
            self._observer.signed_in(issuer.name, Outcome.LEAD if found.team else Outcome.OPERATOR)
            logger.info(
                "a person signed in to the console",
                extra={"issuer": issuer.name, "user": found.user, "team": found.team},
            )
            return found, attempt.next
        self._observer.signed_in(issuer.name, found.outcome)
        logger.warning("a sign-in to the console failed", extra={"issuer": issuer.name, "reason": found.detail})
        if found.outcome is Outcome.UNAVAILABLE:
            raise IssuerUnavailable(found.detail, retry_after=RETRY_SECONDS)
        raise Forbidden(found.detail)

    async def _person(
        self, attempt: SignInAttempt, issuer: Issuer, query: Mapping[str, str], redirect_uri: str
    ) -> Person | SignInRefusal:
        try:
            claims = await self._claims(attempt, issuer, query, redirect_uri)
        except (KeysUnread, IssuerUnavailable) as exc:
            return SignInRefusal(Outcome.UNAVAILABLE, _away(issuer, exc))
        found = console_roles.person_of(issuer, claims) if isinstance(claims, Mapping) else claims
        if isinstance(found, TokenRefusal):
            outcome = Outcome.UNAVAILABLE if found.reason is Reason.KEYS_UNAVAILABLE else Outcome.INVALID
            return SignInRefusal(outcome, found.detail)
        return found

    async def _claims(
        self, attempt: SignInAttempt, issuer: Issuer, query: Mapping[str, str], redirect_uri: str
    ) -> Mapping[str, object] | TokenRefusal | SignInRefusal:
        """Return the claims of the ID token that an issuer gives for its answer."""
        assert issuer.console is not None
        key, endpoints = self._key, await self._endpoints_of(issuer)
        code = sign_in.read_answer(query, attempt.state, issuer, endpoints)
        if isinstance(code, SignInRefusal):
            return code
        request = sign_in.token_request(
            issuer.console,
            endpoints.methods,
            code=code,
            redirect_uri=redirect_uri,
            verifier=sign_in_attempts.verifier_of(attempt.state, key),
        )
        if isinstance(request, SignInRefusal):
            return request
        token = sign_in.id_token_in(*await self._source.redeem(issuer.keys, endpoints.token, request))
        if isinstance(token, SignInRefusal):
            return token
        return await self._identities.verify_id_token(token, issuer, sign_in_attempts.nonce_of(attempt.state, key))

    async def _endpoints_of(self, issuer: Issuer) -> Endpoints:
        try:
            return await self._endpoints.find(issuer.keys)
        except KeysUnread as exc:
            raise IssuerUnavailable(_away(issuer, exc), retry_after=RETRY_SECONDS) from exc


def _away(issuer: Issuer, exc: KeysUnread | IssuerUnavailable) -> str:
    if isinstance(exc, IssuerUnavailable):
        return exc.detail
    return f"{issuer.name} cannot be asked who you are: {exc.detail}."
