"""OpenID Connect Discovery 1.0: the document in which an issuer says where its keys are."""

import json
from typing import Final
from urllib.parse import urlsplit

_PATH: Final = "/.well-known/openid-configuration"


def url_of(issuer: str) -> str:
    """Return the address of an issuer's document (Discovery, 4.1)."""
    return issuer.rstrip("/") + _PATH


def jwks_url_in(body: bytes, issuer: str) -> str:
    """Return the address of the keys. Raise `ValueError`, with a message, if the document is not this issuer's."""
    try:
        document = json.loads(body)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(document, dict) or document.get("issuer") != issuer:
        # Otherwise an issuer could speak for another one (Discovery, 4.3).
        raise ValueError("its OpenID configuration names another issuer")
    found = document.get("jwks_uri")
    if not isinstance(found, str):
        raise ValueError("its OpenID configuration has no jwks_uri")  # noqa: TRY004 - the content is invalid
    if not may_be_read(found, issuer):
        raise ValueError("the jwks_uri of its OpenID configuration is not https")
    return found


def may_be_read(url: str, issuer: str) -> bool:
    """Return whether an address is safe against changes on the way: https, or http if the issuer itself is http."""
    return urlsplit(url).scheme in {"https", urlsplit(issuer).scheme}
