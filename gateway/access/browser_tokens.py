"""Browser tokens: short-lived keys with fewer rights, for web pages (docs/architecture.md, Access).

Tokens are signed, not stored (JWT, RFC 7519, HS256 with a secret of the gateway). Each names the key that minted it and
becomes invalid with that key.
"""

import secrets
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Annotated

import jwt
import msgspec
from msgspec import UNSET, UnsetType

from gateway.domain import scopes as scoping
from gateway.domain import tags
from gateway.domain.limits import Limits
from gateway.domain.ports.clock import Clock
from gateway.domain.scopes import Scope
from gateway.domain.teams import Caller
from gateway.errors import Forbidden, InvalidField, Unauthenticated, Unprocessable

TOKEN_PREFIX = "rgt_"  # noqa: S105 - the prefix of every token
TTL_SECONDS = (10, 3600)
_LONGEST_USER = 200
_LONGEST_TOKEN = 64 * 1024
"""A longer one fits into no header, and takes long to verify."""
_LONGEST_SHOWN = 300
"""Characters of a request's text in a message. No pattern and no origin is longer."""
_RENEWABLE_SECONDS = 24 * 3600.0
_AUDIENCE = "replicate-gateway"
_ALGORITHM = "HS256"
NEVER_PUBLIC = frozenset({Scope.TOKENS, Scope.KEYS, Scope.ACCOUNT, Scope.ADMIN})
"""Scopes that no browser token and no publishable key can have."""
_BY_DEFAULT = frozenset(scoping.DEFAULT_SCOPES)

Texts = Annotated[tuple[str, ...], msgspec.Meta(max_length=1000)]
"""A list of a request. A token with a longer one would not fit into a header."""
Patterns = Annotated[tuple[str, ...], msgspec.Meta(max_length=scoping.MOST_PATTERNS)]
Positive = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class TokenLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits of one token, in addition to those of its key. There are no budgets: a token lives an hour at most."""

    requests_per_minute: Positive | None = None
    predictions_per_minute: Positive | None = None
    burst: Positive | None = None
    concurrent_predictions: Positive | None = None

    def as_limits(self) -> Limits:
        """Convert to `Limits`."""
        return Limits(**msgspec.structs.asdict(self))


class BrowserToken(msgspec.Struct, frozen=True, kw_only=True):
    """The claims of a token."""

    team: str
    key_id: str
    expires_at: float
    jti: str = ""
    """Unique id of the token, under which its usage is counted (RFC 7519, 4.1.7)."""
    scopes: tuple[str, ...]
    models: tuple[str, ...] | None = None
    origins: tuple[str, ...] | None = None
    user: str | None = None
    subject: str | None = None
    """Random identity of the owner of what a token without a user makes. Tokens minted before it existed lack it."""
    limits: TokenLimits | None = None
    tags: str | None = None
    """The cost tags of its predictions, as `gateway.domain.tags` writes them."""


class TokenRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /gateway/tokens`."""

    ttl_seconds: int
    scopes: Texts | None = None
    models: Patterns | None = None
    origins: Texts | UnsetType | None = UNSET
    """Left out: the team's. `None`: the token works from anywhere, if the team allows it."""
    user: str | None = None
    limits: TokenLimits | None = None
    tags: dict[str, str] | None = None
    """The cost tags of its predictions. A page cannot set or change them."""
    renew: str | None = None
    """An earlier token whose user or subject the new one gets, so that its page keeps its predictions."""


class MintedToken(msgspec.Struct, frozen=True, kw_only=True):
    """A new token and its rights."""

    token: str
    expires_at: float
    team: str
    scopes: tuple[str, ...]
    origins: tuple[str, ...]
    """Empty: the token works from anywhere."""
    tags: str
    """As `gateway.domain.tags` writes them."""


class TokenService:
    """Mints and verifies browser tokens."""

    def __init__(
        self, secret: bytes, clock: Clock, *, tag_keys: Callable[[], Collection[str]] = frozenset[str]
    ) -> None:
        """Take `tag_keys`, which returns the keys of the config's cost tags."""
        self._secret = secret
        self._clock = clock
        self._tag_keys = tag_keys

    def mint(self, caller: Caller, request: TokenRequest) -> MintedToken:
        """Create a token with at most its caller's rights. Raise `Unprocessable` naming the fields that ask for more.

        Publishable keys and tokens lack `Scope.TOKENS`, so their requests are refused before this is called.
        """
        if caller.user is not None:
            raise Forbidden("A browser token cannot mint another.")
        tagged = _check(caller, request, self._tag_keys())
        renewed = None if request.renew is None else self._renewed(caller, request.renew)
        user, subject = request.user, secrets.token_hex(16)
        if renewed is not None:
            user, subject = user or renewed.user, renewed.subject or renewed.jti
        allowed = caller.scopes - NEVER_PUBLIC
        granted = allowed & frozenset(request.scopes) if request.scopes is not None else allowed & _BY_DEFAULT
        origins = _bound_to(caller) if request.origins is UNSET else request.origins
        if origins is not None:
            origins = tuple(scoping.normal_origin(origin) for origin in origins)
        expires_at = self._clock.now() + request.ttl_seconds
        token = BrowserToken(
            team=caller.team.name,
            key_id=caller.key_id,
            expires_at=expires_at,
            jti=secrets.token_hex(8),
            scopes=tuple(sorted(granted)),
            models=request.models,
            origins=origins,
            user=user,
            subject=subject,
            limits=request.limits,
            tags=tagged or None,
        )
        claims = msgspec.to_builtins(token) | {"aud": _AUDIENCE, "exp": expires_at}
        return MintedToken(
            token=TOKEN_PREFIX + jwt.encode(claims, self._secret, _ALGORITHM),
            expires_at=expires_at,
            team=token.team,
            scopes=token.scopes,
            origins=token.origins or (),
            tags=tagged,
        )

    def _renewed(self, caller: Caller, presented: str) -> BrowserToken:
        """Read the token to renew. It may have expired a day ago at most: a page can sleep for a night."""
        try:
            token = self._verified(presented) if len(presented) <= _LONGEST_TOKEN else None
        except Unauthenticated:
            token = None
        if (
            token is None
            or token.team != caller.team.name
            or token.expires_at + _RENEWABLE_SECONDS <= self._clock.now()
        ):
            raise Unprocessable.field("renew", "this is not a browser token of your team, or it expired long ago")
        return token

    def read(self, presented: str) -> BrowserToken:
        """Verify a token. Raise `Unauthenticated` if this gateway did not sign it, or if it has expired."""
        token = self._verified(presented)
        if self._clock.now() >= token.expires_at:
            raise Unauthenticated("Your browser token has expired.")
        return token

    def _verified(self, presented: str) -> BrowserToken:
        try:
            claims = jwt.decode(
                presented.removeprefix(TOKEN_PREFIX),
                self._secret,
                [_ALGORITHM],
                audience=_AUDIENCE,
                options={"verify_exp": False, "require": ["exp", "aud"]},
            )
            return msgspec.convert(claims, BrowserToken)
        except (jwt.InvalidTokenError, msgspec.ValidationError, ValueError) as exc:
            raise Unauthenticated("You did not pass a valid authentication token") from exc


def _check(caller: Caller, request: TokenRequest, tag_keys: Collection[str]) -> str:
    """Return the tags of a valid request. Raise `Unprocessable` naming every invalid field."""
    wrong: list[tuple[str, str]] = []
    shortest, longest = TTL_SECONDS
    if not shortest <= request.ttl_seconds <= longest:
        wrong.append(("ttl_seconds", f"ttl_seconds must be from {shortest} to {longest}"))
    beyond = [scope for scope in request.scopes or () if scope not in caller.scopes - NEVER_PUBLIC]
    wrong += [("scopes", _beyond(scope)) for scope in beyond]
    wrong += [("models", reason) for reason in map(partial(_wrong_model, caller), request.models or ()) if reason]
    wrong += [("origins", reason) for reason in _wrong_origins(caller, request.origins)]
    if request.user is not None and not (request.user.isprintable() and 0 < len(request.user) <= _LONGEST_USER):
        wrong.append(("user", f"user must be 1 to {_LONGEST_USER} printable characters"))
    tagged = tags.NONE
    try:
        tagged = tags.of(request.tags or {}, tag_keys)
    except ValueError as exc:
        wrong.append(("tags", str(exc)))
    if wrong:
        raise Unprocessable([InvalidField("invalid_value", field, reason) for field, reason in wrong])
    return tagged


def _beyond(scope: str) -> str:
    if scope not in frozenset(Scope):
        return f"there is no scope {scope[:60]!r}; scopes are {', '.join(sorted(set(Scope) - NEVER_PUBLIC))}"
    return f"this key cannot grant the scope {scope!r} to a browser token"


def _shown(text: str) -> str:
    """Quote the beginning of a text of a request. It can have as many characters as a body."""
    return repr(text[:_LONGEST_SHOWN])


def _wrong_model(caller: Caller, pattern: str) -> str | None:
    if not scoping.is_asked_pattern(pattern):
        return f"{_shown(pattern)} must be {scoping.ASKED_PATTERN_FORM}"
    if any(scoping.patterns_outside(globs, caller.team.without_aliases([pattern])) for globs in caller.models):
        return f"{_shown(pattern)} is not covered by the models that this key can run"
    return None


def _bound_to(caller: Caller) -> tuple[str, ...]:
    """Return the origins of a token whose request names none."""
    return caller.origins or caller.team.origins


def _wrong_origins(caller: Caller, origins: tuple[str, ...] | UnsetType | None) -> Iterator[str]:
    match origins:
        case UnsetType():
            if not _bound_to(caller):
                yield (
                    "your team lists no origins, so the token would work from anywhere: add origins, or pass null if "
                    "your team has unbound_tokens"
                )
        case None:
            if not caller.team.unbound_tokens or caller.origins:
                yield "null needs unbound_tokens = true in the settings of your team"
        case ():
            yield "origins must not be empty: leave it out for the origins of your team, or pass null for none"
        case _:
            yield from filter(None, map(partial(_wrong_origin, caller), origins))


def _wrong_origin(caller: Caller, origin: str) -> str | None:
    if len(origin) > _LONGEST_SHOWN:
        return f"{_shown(origin)} is longer than any origin"
    try:
        outside = scoping.origins_outside(caller.origins or caller.team.origins, [scoping.normal_origin(origin)])
    except ValueError as exc:
        return str(exc)
    return f"{_shown(origin)} is not among the origins of your team" if outside else None
