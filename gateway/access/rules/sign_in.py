"""Signing in to the console at an issuer: the authorization code flow with PKCE.

OpenID Connect Core 1.0, 3.1; RFC 6749, 4.1; RFC 7636; RFC 9207. What is sent, and which answers count.
"""

import hashlib
import hmac
import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final
from urllib.parse import quote_plus, unquote, urlencode, urlsplit

import msgspec

from gateway.access.rules import issuers
from gateway.access.rules.discovery import BASIC, POST, Endpoints
from gateway.access.rules.issuers import ConsoleClient, Issuer
from gateway.access.rules.json_web_tokens import Reason, TokenRefusal

CONSOLE: Final = "/dashboard"
_SIGN_IN: Final = f"{CONSOLE}/sign-in"
_LONGEST_PATH: Final = 1000
_PATH: Final = re.compile(r"/dashboard(?:[/?][!-\[\]-~]*)?")
"""Printable ASCII without a backslash, which browsers read as a slash."""
_CODE: Final = re.compile(r"[ -~]{1,4096}")
_DECLINED: Final = frozenset({"access_denied", "consent_required", "interaction_required", "login_required"})
_ERRORS: Final = frozenset(
    {
        "invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope", "server_error",
        "temporarily_unavailable", "invalid_client", "invalid_grant", "unsupported_grant_type",
        "account_selection_required", "request_not_supported", "request_uri_not_supported",
    }
)  # fmt: skip
"""The errors of RFC 6749 and OpenID Connect that are shown. Anything else may be text for somebody to believe."""


class Outcome(StrEnum):
    """How a sign-in ended, as the metric names it."""

    OPERATOR = "operator"
    LEAD = "lead"
    NO_ROLE = "no_role"
    DECLINED = "declined"
    INVALID = "invalid"
    UNAVAILABLE = "unavailable"


class SignInRefusal(msgspec.Struct, frozen=True):
    """Nobody is signed in. `detail` is a sentence for the person, without text that the issuer controls."""

    outcome: Outcome
    detail: str


class CodeExchange(msgspec.Struct, frozen=True):
    """A request to the token endpoint. It has the code and the client's secret."""

    body: bytes
    authorization: str | None = None

    def __repr__(self) -> str:
        """Leave the secrets out."""
        return "CodeExchange()"


def challenge_of(verifier: str) -> str:
    """Return the challenge of a verifier, by the method S256 (RFC 7636, 4.2)."""
    return urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def authorization_url(
    endpoint: str, client: ConsoleClient, redirect_uri: str, *, state: str, nonce: str, verifier: str
) -> str:
    """Return where a browser is sent to sign in. What the endpoint has as its query stays (RFC 6749, 3.1)."""
    asked = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(client.scopes),
        "state": state,
        "nonce": nonce,
        "code_challenge": challenge_of(verifier),
        "code_challenge_method": "S256",
    }
    separator = "&" if "?" in endpoint else "?"
    return f"{endpoint}{separator}{urlencode(asked)}"


def read_answer(query: Mapping[str, str], state: str, issuer: Issuer, endpoints: Endpoints) -> str | SignInRefusal:
    """Return the code in an issuer's answer to a sign-in that began with `state`."""
    if not hmac.compare_digest(query.get("state", "").encode("utf-8", "surrogateescape"), state.encode()):
        return SignInRefusal(Outcome.INVALID, "This answer belongs to another sign-in.")
    named = query.get("iss")
    if named != issuer.keys.issuer and (named is not None or endpoints.names_itself):
        # Otherwise a code of one issuer could be sent to another one (RFC 9207, 2.4).
        return SignInRefusal(Outcome.INVALID, "This answer is from another issuer.")
    if (error := query.get("error")) is not None:
        return refusal_of(error)
    code = query.get("code", "")
    if not _CODE.fullmatch(code):
        return SignInRefusal(Outcome.INVALID, "The issuer's answer has no code.")
    return code


def refusal_of(error: str | None) -> SignInRefusal:
    """Return what an error of an issuer means for the person."""
    if error in _DECLINED:
        return SignInRefusal(Outcome.DECLINED, "The sign-in was declined there.")
    reason = f" ({error})" if error in _ERRORS else ""
    return SignInRefusal(Outcome.INVALID, f"The issuer refused the sign-in{reason}.")


def token_request(
    client: ConsoleClient, methods: tuple[str, ...], *, code: str, redirect_uri: str, verifier: str
) -> CodeExchange | SignInRefusal:
    """Return the request that exchanges a code for an ID token."""
    sent = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": verifier,
    }
    secret = client.client_secret
    if secret is None:
        return CodeExchange(urlencode(sent | {"client_id": client.client_id}).encode())
    if BASIC in methods:
        # Each half is form-encoded first (RFC 6749, 2.3.1).
        pair = f"{quote_plus(client.client_id)}:{quote_plus(secret)}".encode()
        return CodeExchange(urlencode(sent).encode(), f"Basic {b64encode(pair).decode()}")
    if POST in methods:
        return CodeExchange(urlencode(sent | {"client_id": client.client_id, "client_secret": secret}).encode())
    detail = f"The issuer accepts a client's secret neither by {BASIC} nor by {POST}."
    return SignInRefusal(Outcome.INVALID, detail)


def id_token_in(status: int, body: bytes) -> str | SignInRefusal:
    """Return the ID token in an answer of the token endpoint."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    given = answer if isinstance(answer, dict) else {}
    if status != 200:
        error = given.get("error")
        return refusal_of(error if isinstance(error, str) else None)
    token = given.get("id_token")
    if not isinstance(token, str):
        return SignInRefusal(Outcome.INVALID, "The issuer's answer has no ID token. Request the scope openid.")
    return token


def check_id_token(issuer: Issuer, client_id: str, nonce: str, claims: Mapping[str, Any]) -> TokenRefusal | None:
    """Return why an ID token is not the answer to a sign-in; `None` if it is (Core, 3.1.3.7).

    Its signature and its times are checked elsewhere.
    """
    if claims.get("iss") != issuer.keys.issuer:
        return TokenRefusal(Reason.UNKNOWN_ISSUER, "The ID token is from another issuer (iss).")
    audiences = issuers.texts(claims.get("aud"))
    if client_id not in audiences:
        return TokenRefusal(Reason.AUDIENCE, "The ID token was issued for another client (aud).")
    if claims.get("azp", client_id if len(audiences) == 1 else None) != client_id:
        return TokenRefusal(Reason.AUDIENCE, "The ID token was issued to another client (azp).")
    given = claims.get("nonce")
    if not isinstance(given, str) or not hmac.compare_digest(given.encode("utf-8", "surrogatepass"), nonce.encode()):
        return TokenRefusal(Reason.CLAIM, "The ID token belongs to another sign-in (nonce).")
    return None


def page_after(asked: str) -> str:
    """Return the page of the console to open after a sign-in: the one asked for, or else the first.

    It never leads to another host or to another route of the listener.
    """
    if len(asked) > _LONGEST_PATH or not _PATH.fullmatch(asked):
        return CONSOLE
    path = unquote(urlsplit(asked).path).replace("\\", "/")
    segments = path.split("/")
    # Browsers remove `.` and `..` also where they are encoded, and the gateway finds routes by the decoded path.
    if "" in segments[1:-1] or "." in segments or ".." in segments or f"{path}/".startswith(f"{_SIGN_IN}/"):
        return CONSOLE
    return asked
