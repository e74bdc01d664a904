"""Which keys of an issuer verify which signatures."""

import json
from typing import Any

import pytest

from gateway.access.rules import json_web_keys
from tests.support.issuers import SigningKey, jwks, new_key, rsa_key

EC, RSA = new_key("e"), new_key("r", "RS256")


def found(*keys: SigningKey | dict[str, Any], most: int = 10) -> list[tuple[str | None, list[str]]]:
    parsed = json_web_keys.parse(jwks(*keys), most)
    return [(key.key_id, sorted(key.algorithms)) for key in parsed.keys]


def test_a_key_verifies_what_its_type_allows():
    """An elliptic curve has one algorithm. An RSA key has six, unless it names one."""
    unnamed = {name: value for name, value in RSA.jwk.items() if name != "alg"}
    assert found(EC, RSA, unnamed, new_key("d", "EdDSA")) == [
        ("e", ["ES256"]),
        ("r", ["RS256"]),
        ("r", ["PS256", "PS384", "PS512", "RS256", "RS384", "RS512"]),
        ("d", ["EdDSA"]),
    ]


UNUSABLE = {
    "no object": "key",
    "symmetric": {"kty": "oct", "kid": "s", "k": "AAAA", "alg": "HS256"},
    "for encryption": RSA.jwk | {"use": "enc"},
    "for another algorithm": RSA.jwk | {"alg": "RSA-OAEP"},
    "of another type than its algorithm": RSA.jwk | {"alg": "ES256"},
    "for signing only": EC.jwk | {"key_ops": ["sign"]},
    "private": EC.jwk | {"d": "AAAA"},
    "of an unknown curve": EC.jwk | {"crv": "secp256k1"},
    "not on its curve": EC.jwk | {"x": EC.jwk["y"]},
    "without numbers": {"kty": "RSA", "kid": "r"},
    "with an id that is no text": EC.jwk | {"kid": 7},
    "with numbers that are no text": EC.jwk | {"x": 7},
    "too short": SigningKey("short", "RS256", rsa_key(1024)),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_keys_that_cannot_verify_are_left_out(name: str):
    """The others count: an issuer may publish a key of a new kind."""
    assert found(UNUSABLE[name], EC) == [("e", ["ES256"])]
    with pytest.raises(ValueError, match="no key that can verify"):
        json_web_keys.parse(jwks(UNUSABLE[name]), 10)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"keys": {}}', b"\xff", b"[" * 10_000, b'{"keys": []}'])
def test_what_is_no_list_of_keys_is_refused(body: bytes):
    """An error page instead of keys."""
    with pytest.raises(ValueError, match=r"."):
        json_web_keys.parse(body, 10)


def test_the_number_of_keys_is_bounded():
    """Those that cannot be used do not count."""
    assert len(found(*[UNUSABLE["private"]] * 5, *[EC] * 20, most=7)) == 7


def test_a_token_finds_the_key_that_it_names():
    """Of two keys with one id, the one whose algorithm it has."""
    twin = new_key("e", "EdDSA")
    keys = json_web_keys.parse(jwks(EC, twin), 10)
    assert [keys.find("e", name) for name in ("ES256", "EdDSA", "RS256")] == [*keys.keys, None]
    assert keys.find("other", "ES256") is None
    assert keys.find("", "ES256") is None


def test_a_token_that_names_no_key_needs_a_single_one():
    """Otherwise it is not clear which one is meant."""
    keys = json_web_keys.parse(jwks(EC, new_key("d", "EdDSA"), new_key("d2", "EdDSA")), 10)
    assert keys.find(None, "ES256") is keys.keys[0]
    assert keys.find(None, "EdDSA") is None


def test_ids_of_other_forms_are_ordinary_texts():
    """A `kid` names nothing but a key of the list: no file, no query, no address."""
    keys = json_web_keys.parse(json.dumps({"keys": [EC.jwk]}).encode(), 10)
    for odd in ("../../dev/null", "' OR 1=1 --", "https://evil.example/key", "\x00"):
        assert keys.find(odd, "ES256") is None
