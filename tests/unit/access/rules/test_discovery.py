"""Where an issuer says that its keys are."""

import json

import pytest

from gateway.access.rules import discovery

ISSUER = "https://id.example.com/realms/acme"


@pytest.mark.parametrize("issuer", [ISSUER, f"{ISSUER}/"])
def test_the_document_is_below_the_issuer(issuer: str):
    """A slash at the end is not doubled (Discovery, 4.1)."""
    assert discovery.url_of(issuer) == f"{ISSUER}/.well-known/openid-configuration"


def document(**more: object) -> bytes:
    return json.dumps({"issuer": ISSUER, "jwks_uri": "https://keys.example.com/jwks", **more}).encode()


def test_it_names_the_keys():
    """They may be on another host."""
    assert discovery.jwks_url_in(document(), ISSUER) == "https://keys.example.com/jwks"
    local = json.dumps({"issuer": "http://localhost:1", "jwks_uri": "http://localhost:1/jwks"}).encode()
    assert discovery.jwks_url_in(local, "http://localhost:1") == "http://localhost:1/jwks"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 10_000,
        document(issuer=f"{ISSUER}/"),
        document(issuer=None),
        document(jwks_uri=None),
        document(jwks_uri=["https://keys.example.com/jwks"]),
        document(jwks_uri="http://keys.example.com/jwks"),
        document(jwks_uri="file:///etc/passwd"),
        document(jwks_uri="data:application/json,{}"),
        document(jwks_uri="/jwks"),
    ],
)
def test_a_document_that_is_not_of_this_issuer_is_refused(body: bytes):
    """One issuer must not speak for another, and keys must not be changed on their way."""
    with pytest.raises(ValueError, match=r"."):
        discovery.jwks_url_in(body, ISSUER)
