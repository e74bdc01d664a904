"""Issuers of external identities: which of them a token is from, and whom its claims name.

An issuer is a provider at which the users of an application sign in, such as Auth0 or Keycloak. Its tokens are JWTs.
See docs/identities.md.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from gateway.access.rules.json_web_tokens import Reason, TokenRefusal
from gateway.domain.scopes import Scope

LONGEST_USER: Final = 200
"""As of the header Gateway-User."""
_EMAIL: Final = re.compile(r"(?:.*[./])?email", re.IGNORECASE)
_LONGEST_SHOWN: Final = 200


class KeyLocation(msgspec.Struct, frozen=True, kw_only=True):
    """Where an issuer publishes its keys, and the bounds of reading them."""

    issuer: str
    jwks_url: str | None = None
    """`None`: the issuer's OpenID configuration names it (OpenID Connect Discovery 1.0, 4)."""
    allow_private_addresses: bool = False
    ttl_seconds: float = 3600.0
    """Keys are read again before they are this old."""
    stale_seconds: float = 86_400.0
    """Keys that cannot be read again are used until they are this old."""
    max_bytes: int = 256 * 1024
    max_keys: int = 100


class ConsoleClient(msgspec.Struct, frozen=True, kw_only=True):
    """How people sign in to the console at an issuer: the gateway as its client, and what their claims mean."""

    client_id: str
    client_secret: str | None = None
    """`None`: a public client, which has PKCE alone."""
    scopes: tuple[str, ...] = ("openid", "profile")
    """What is requested at the issuer. They are not scopes of the gateway."""
    operator_claim: str | None = None
    operators: frozenset[str] = frozenset()
    """Operators by values of the claim."""
    lead_claim: str | None = None
    leads: Mapping[str, str] = {}
    """The teams that people lead, by values of the claim."""

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"ConsoleClient(client_id={self.client_id!r})"


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """An issuer whose tokens are accepted, and how they are read."""

    name: str
    keys: KeyLocation
    audiences: frozenset[str]
    algorithms: frozenset[str]
    team: str | None = None
    """The team of every token. `None`: the claim `team_claim` decides, by `teams`."""
    team_claim: str = ""
    teams: Mapping[str, str] = {}
    """Teams by values of the claim."""
    user_claim: str = "sub"
    user_prefix: str = ""
    scope_claim: str | None = None
    """The claim with the scopes of a token. `None`: every token has `scopes`."""
    scopes: frozenset[Scope] | None = None
    """The most that a token can have. `None`: the default of a team."""
    models: tuple[str, ...] | None = None
    origins: tuple[str, ...] | None = None
    """The web origins that requests must come from. `None`: those of the team."""
    is_native: bool = False
    """Whether its tokens work without an origin: they are for native apps."""
    leeway_seconds: float = 30.0
    """By how much clocks may differ."""
    console: ConsoleClient | None = None
    """`None`: nobody signs in to the console there."""

    def key_id(self, team: str) -> str:
        """Return the id under which its identities in a team are counted. No key has such an id."""
        return f"{team}/issuer:{self.name}"

    @property
    def all_teams(self) -> tuple[str, ...]:
        """The teams that its tokens can belong to."""
        return (self.team,) if self.team is not None else tuple(dict.fromkeys(self.teams.values()))


class IssuerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The issuers of the config, and the bounds of their tokens."""

    issuers: tuple[Issuer, ...] = ()
    max_token_bytes: int = 16 * 1024
    """A longer token is refused before it is read."""
    max_cached_tokens: int = 10_000
    """Verified tokens that are remembered, so that their signature is verified once."""


class ExternalIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a verified token names."""

    issuer: Issuer
    team: str
    user: str
    scopes: frozenset[str] | None
    """The scopes that the token names; `None` if the issuer's config alone decides."""
    ends_at: float
    """When it is no longer accepted, as epoch time: its expiry and the leeway."""


def issuer_of(issuers: Iterable[Issuer], claims: Mapping[str, Any]) -> Issuer | TokenRefusal:
    """Return the issuer that a token claims to be from: the first one with its `iss` and one of its `aud`."""
    given = claims.get("iss")
    if not isinstance(given, str):
        return TokenRefusal(Reason.UNKNOWN_ISSUER, "This token names no issuer (iss).")
    named = [issuer for issuer in issuers if issuer.keys.issuer == given]
    if not named:
        detail = f"This gateway does not accept tokens of the issuer {_shown(given)}."
        return TokenRefusal(Reason.UNKNOWN_ISSUER, detail)
    audiences = texts(claims.get("aud"))
    for issuer in named:
        if not issuer.audiences.isdisjoint(audiences):
            return issuer
    return TokenRefusal(Reason.AUDIENCE, "This token was issued for another audience (aud) than this gateway.")


def check_times(issuer: Issuer, claims: Mapping[str, Any], now: float) -> TokenRefusal | None:
    """Return why a token is not valid at `now`; `None` if it is."""
    expires_at, begins_at = _time(claims.get("exp")), _time(claims.get("nbf", 0))
    if expires_at is None:
        return TokenRefusal(Reason.CLAIM, "This token has no valid expiry (exp).")
    if begins_at is None:
        return TokenRefusal(Reason.CLAIM, "The time from which this token is valid (nbf) is not a number.")
    if now >= expires_at + issuer.leeway_seconds:
        return TokenRefusal(Reason.EXPIRED, "This token has expired. Sign in again, or refresh it.")
    if now < begins_at - issuer.leeway_seconds:
        return TokenRefusal(Reason.NOT_YET_VALID, "This token is not valid yet (nbf).")
    return None


def identify(issuer: Issuer, claims: Mapping[str, Any]) -> ExternalIdentity | TokenRefusal:
    """Return whom a token names. Its signature and its times must be valid."""
    team = _team(issuer, claims)
    if isinstance(team, TokenRefusal):
        return team
    user = user_of(issuer, claims)
    if isinstance(user, TokenRefusal):
        return user
    scopes = None
    if issuer.scope_claim is not None:
        given = claim(claims, issuer.scope_claim)
        if not isinstance(given, str) and not _is_texts(given):
            return _missing(issuer.scope_claim, "a text or a list of texts")
        # Scopes are separated by spaces (RFC 8693, 4.2). Those of other services mean nothing here.
        scopes = frozenset(given.split() if isinstance(given, str) else given)
    ends_at = (_time(claims.get("exp")) or 0.0) + issuer.leeway_seconds
    return ExternalIdentity(issuer=issuer, team=team, user=user, scopes=scopes, ends_at=ends_at)


def user_of(issuer: Issuer, claims: Mapping[str, Any]) -> str | TokenRefusal:
    """Return the name of the user, as the gateway records it."""
    user = claim(claims, issuer.user_claim)
    if not isinstance(user, str) or not user:
        return _missing(issuer.user_claim, "a text")
    if (refusal := check_email(issuer.user_claim, claims)) is not None:
        return refusal
    user = issuer.user_prefix + user
    if not user.isprintable() or len(user) > LONGEST_USER:
        detail = f"The user that this token names is not 1 to {LONGEST_USER} printable characters."
        return TokenRefusal(Reason.CLAIM, detail)
    return user


def check_email(name: str, claims: Mapping[str, Any]) -> TokenRefusal | None:
    """Return why a claim does not count: it is an e-mail address that is not verified. `None` for other claims."""
    if not _EMAIL.fullmatch(name) or claims.get("email_verified") is True:
        return None
    return TokenRefusal(Reason.EMAIL_UNVERIFIED, "The e-mail address of this token is not verified (email_verified).")


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its name, or one within another by a path such as `app_metadata.org_id`; `None` if absent.

    Names can contain dots, as in `https://acme.example/org_id`: a claim of exactly this name counts first.
    """
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _team(issuer: Issuer, claims: Mapping[str, Any]) -> str | TokenRefusal:
    if issuer.team is not None:
        return issuer.team
    given = claim(claims, issuer.team_claim)
    values = texts(given)
    if not values:
        return _missing(issuer.team_claim, "a text or a list of texts")
    found = {issuer.teams[value] for value in values if value in issuer.teams}
    if len(found) == 1:
        return found.pop()
    what = "belongs to several teams" if found else "does not belong to a team"
    return TokenRefusal(Reason.TEAM, f"This token {what} of this gateway (claim {_shown(issuer.team_claim)}).")


def _missing(name: str, form: str) -> TokenRefusal:
    return TokenRefusal(Reason.CLAIM, f"This token lacks the claim {_shown(name)}, or it is not {form}.")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def texts(value: Any) -> tuple[str, ...]:
    """Return a claim that is a text or a list of texts as a tuple; nothing if it is neither."""
    if isinstance(value, str):
        return (value,)
    return tuple(value) if _is_texts(value) else ()


def _time(value: Any) -> float | None:
    """Return a NumericDate (RFC 7519, 2)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _shown(text: str) -> str:
    """Quote the beginning of a text that a token contains."""
    return ascii(text[:_LONGEST_SHOWN])
