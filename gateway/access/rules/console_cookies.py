"""Signed cookies of the console: JSON Web Tokens (RFC 7519) with HS256. They expire by the gateway's clock."""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

import jwt

_ALGORITHM: Final = "HS256"


class InvalidCookie(Exception):
    """A cookie was not signed with this key for this purpose."""


class ExpiredCookie(InvalidCookie):
    """It was, but its time is over."""


def key_of(secret: bytes, ops_token: str | None) -> bytes:
    """Return the key of all signatures. It follows the operators' token: another token ends all cookies."""
    return hmac.new(secret, (ops_token or "").encode(), hashlib.sha256).digest()


def seal(claims: Mapping[str, object], audience: str, key: bytes, expires_at: int) -> str:
    """Return a cookie with claims. `audience` says what it is for."""
    return jwt.encode({**claims, "aud": audience, "exp": expires_at}, key, algorithm=_ALGORITHM)


def unseal(cookie: str, audience: str, key: bytes, now: float, *required: str) -> dict[str, Any]:
    """Return the claims of a cookie, the `required` ones among them. Raise `InvalidCookie` or `ExpiredCookie`."""
    try:
        claims: dict[str, Any] = jwt.decode(
            cookie,
            key,
            algorithms=[_ALGORITHM],
            audience=audience,
            # Expiry is checked below, by the gateway's clock.
            options={"require": ["exp", "aud", *required], "verify_exp": False},
        )
    except (jwt.InvalidTokenError, ValueError) as exc:
        # ValueError: bytes that are not UTF-8.
        raise InvalidCookie from exc
    if claims["exp"] <= now:
        raise ExpiredCookie
    return claims
