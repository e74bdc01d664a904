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


SIGN_IN = {"authorization_endpoint": "https://id.example.com/authorize?a=b", "token_endpoint": f"{ISSUER}/token"}


def test_it_names_the_endpoints():
    """A secret goes by Basic unless the document says otherwise (Discovery, 3)."""
    found = discovery.endpoints_in(document(**SIGN_IN), ISSUER)
    assert (found.authorization, found.token) == (SIGN_IN["authorization_endpoint"], SIGN_IN["token_endpoint"])
    assert (found.methods, found.names_itself) == (("client_secret_basic",), False)
    more = {
        "token_endpoint_auth_methods_supported": ["client_secret_post", 1, "none"],
        "authorization_response_iss_parameter_supported": True,
    }
    found = discovery.endpoints_in(document(**SIGN_IN, **more), ISSUER)
    assert (found.methods, found.names_itself) == (("client_secret_post", "none"), True)
    odd = discovery.endpoints_in(document(**SIGN_IN, token_endpoint_auth_methods_supported="none"), ISSUER)
    assert odd.methods == ()


@pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint"])
@pytest.mark.parametrize(
    "address",
    [
        None, 1, "", "/authorize", "http://id.example.com/x", "javascript:alert(1)", "https://", "https://a b.example",
        "https://user:pw@id.example.com/x", "https://id.example.com/x#y", "https://id.example.com/\r\nx: y",
    ],
)  # fmt: skip
def test_endpoints_that_are_not_safe_are_refused(name: str, address: object):
    """A browser is sent to one of them, and the client's secret to the other."""
    with pytest.raises(ValueError, match=r"."):
        discovery.endpoints_in(document(**SIGN_IN | {name: address}), ISSUER)
