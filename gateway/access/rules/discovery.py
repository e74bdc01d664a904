"""OpenID Connect Discovery 1.0: the document in which an issuer says where its keys and its endpoints are."""

import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from gateway.domain import urls

_PATH: Final = "/.well-known/openid-configuration"
BASIC: Final = "client_secret_basic"
POST: Final = "client_secret_post"
_MOST_METHODS: Final = 32


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """Where people sign in at an issuer, and where the gateway learns who they are."""

    authorization: str
    """For browsers. It can have a query."""
    token: str
    methods: tuple[str, ...] = (BASIC,)
    """How a client may send its secret (OpenID Connect Discovery 1.0, 3)."""
    names_itself: bool = False
    """Whether every answer of the authorization endpoint has `iss` (RFC 9207)."""


def url_of(issuer: str) -> str:
    """Return the address of an issuer's document (Discovery, 4.1)."""
    return issuer.rstrip("/") + _PATH


def jwks_url_in(body: bytes, issuer: str) -> str:
    """Return the address of the keys. Raise `ValueError`, with a message, if the document is not this issuer's."""
    return _address(_document(body, issuer), "jwks_uri", issuer)


def endpoints_in(body: bytes, issuer: str) -> Endpoints:
    """Return the endpoints. Raise `ValueError`, with a message, if the document is not this issuer's."""
    document = _document(body, issuer)
    given = document.get("token_endpoint_auth_methods_supported", [BASIC])
    methods = given[:_MOST_METHODS] if isinstance(given, list) else []
    return Endpoints(
        authorization=_address(document, "authorization_endpoint", issuer),
        token=_address(document, "token_endpoint", issuer),
        methods=tuple(each for each in methods if isinstance(each, str)),
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def may_be_read(url: str, issuer: str) -> bool:
    """Return whether an address is safe against changes on the way: https, or http if the issuer itself is http."""
    return urlsplit(url).scheme in {"https", urlsplit(issuer).scheme}


def _document(body: bytes, issuer: str) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        # Otherwise an issuer could speak for another one (Discovery, 4.3).
        raise ValueError("its OpenID configuration names another issuer")
    return document


def _address(document: Mapping[str, Any], name: str, issuer: str) -> str:
    found = document.get(name)
    if not isinstance(found, str):
        raise ValueError(f"its OpenID configuration has no {name}")  # noqa: TRY004 - the content is invalid
    if not may_be_read(found, issuer):
        raise ValueError(f"the {name} of its OpenID configuration is not https")
    sent = urls.as_sent(found)
    if "@" in urlsplit(sent).netloc or "#" in sent:
        raise ValueError(f"the {name} of its OpenID configuration has a user name or a fragment")
    return sent
