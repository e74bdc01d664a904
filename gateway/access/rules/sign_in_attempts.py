"""A sign-in that was started in a browser: what the browser keeps until it returns from the issuer.

It is a signed cookie (`console_cookies.py`) with a random state. Nonce and PKCE verifier are derived from the state
with a key of the gateway, so whoever reads the cookie or the addresses does not know the verifier.
"""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from typing import Final

import msgspec

from gateway.access.rules import console_cookies
from gateway.access.rules.console_cookies import InvalidCookie

TTL_SECONDS: Final = 600
"""How long a person may take at the issuer."""
_AUDIENCE: Final = "replicate-gateway-sign-in"


class SignInAttempt(msgspec.Struct, frozen=True, kw_only=True):
    """A sign-in that was started."""

    issuer: str
    """Its name in the config."""
    state: str
    next: str
    """The page to open afterwards."""


def seal(attempt: SignInAttempt, key: bytes, now: float) -> str:
    """Return the cookie of an attempt that begins now."""
    return console_cookies.seal(msgspec.structs.asdict(attempt), _AUDIENCE, key, int(now) + TTL_SECONDS)


def unseal(cookie: str, key: bytes, now: float) -> SignInAttempt | None:
    """Return the attempt of a cookie; `None` if it is not one of this gateway, or is too old."""
    try:
        return msgspec.convert(console_cookies.unseal(cookie, _AUDIENCE, key, now), SignInAttempt)
    except (InvalidCookie, msgspec.ValidationError):
        return None


def nonce_of(state: str, key: bytes) -> str:
    """Return what ties the ID token to this attempt."""
    return _derived("nonce", state, key)


def verifier_of(state: str, key: bytes) -> str:
    """Return what ties the code to this attempt: 43 characters (RFC 7636, 4.1)."""
    return _derived("verifier", state, key)


def _derived(what: str, state: str, key: bytes) -> str:
    digest = hmac.new(key, f"{what} {state}".encode(), hashlib.sha256).digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
