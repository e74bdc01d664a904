"""Read JSON Web Tokens (RFC 7519) and verify their signatures (RFC 7515).

Nothing in a token decides how it is verified: the issuer's config says which algorithms count, and the key comes from
the issuer's own address. So keys and addresses in a header (`jwk`, `jku`, `x5c`, `x5u`) are never used, and the
algorithm of the header only selects among those that the config and the key allow.
"""

import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NoReturn

import jwt
import msgspec

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""Signatures with a public key. `none` and HMAC are not among them and cannot be configured: with HMAC, whoever knows
the public key could sign."""

_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_OF_EVENTS: Final = frozenset({"logout+jwt", "secevent+jwt"})
_JWS: Final = jwt.PyJWS(ALGORITHMS)


class Reason(StrEnum):
    """Why a token is refused, as the metric names it."""

    TOO_LONG = "too_long"
    MALFORMED = "malformed"
    UNKNOWN_ISSUER = "unknown_issuer"
    AUDIENCE = "audience"
    ALGORITHM = "algorithm"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    UNKNOWN_KEY = "unknown_key"
    KEYS_UNAVAILABLE = "keys_unavailable"
    SIGNATURE = "signature"
    CLAIM = "claim"
    EMAIL_UNVERIFIED = "email_unverified"
    TEAM = "team"


class TokenRefusal(msgspec.Struct, frozen=True):
    """A token is not accepted. `detail` is a sentence for its holder."""

    reason: Reason
    detail: str


class UnverifiedToken(msgspec.Struct, frozen=True, kw_only=True):
    """The content of a token whose signature has not been verified."""

    text: str
    algorithm: str
    key_id: str | None
    claims: Mapping[str, Any]


def looks_like_one(presented: str) -> bool:
    """Return whether a credential is meant to be a token: three parts, the first an object in Base64url."""
    return presented.startswith("eyJ") and presented.count(".") == 2


def read(text: str) -> UnverifiedToken | TokenRefusal:
    """Read a token. Its content is what anybody may have written."""
    malformed = TokenRefusal(Reason.MALFORMED, "This is not a valid JSON Web Token.")
    if not _FORM.fullmatch(text):
        return malformed
    try:
        header, claims = (_object(part) for part in text.split(".")[:2])
    except (ValueError, RecursionError):
        return malformed
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not (key_id is None or isinstance(key_id, str)):
        return TokenRefusal(Reason.MALFORMED, "The header of this token is not valid.")
    if "crit" in header or "b64" in header:
        # Extensions that must be understood (RFC 7515, 4.1.11), such as an unencoded payload (RFC 7797).
        return TokenRefusal(Reason.MALFORMED, "The header of this token names extensions that are not supported.")
    kind = header.get("typ")
    if (isinstance(kind, str) and _media_type(kind) in _OF_EVENTS) or isinstance(claims.get("events"), dict):
        # It has the issuer, audience and user of an identity (RFC 8417; Back-Channel Logout 1.0, 2.4; RFC 8725, 3.12).
        return TokenRefusal(
            Reason.CLAIM, "This token reports an event, such as the end of a session. Nobody signs in with it."
        )
    return UnverifiedToken(text=text, algorithm=algorithm, key_id=key_id, claims=claims)


def has_valid_signature(token: UnverifiedToken, key: Any) -> bool:
    """Return whether a public key verifies a token. The key must fit the token's algorithm (`json_web_keys`)."""
    try:
        _JWS.decode(token.text, key, [token.algorithm])
    except (jwt.PyJWTError, ValueError, TypeError):
        return False
    return True


def _media_type(kind: str) -> str:
    return kind.lower().removeprefix("application/")


def _object(part: str) -> dict[str, Any]:
    decoded = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    value = json.loads(decoded.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse)
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - the content is invalid, not a type
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make an object. Of two claims with one name, readers differ in which one counts (RFC 7519, 4)."""
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is given twice")
    return made


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")
