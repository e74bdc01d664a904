"""What is read of a token before anybody knows who wrote it."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.rules import json_web_tokens
from gateway.access.rules.json_web_tokens import ALGORITHMS, Reason, TokenRefusal, UnverifiedToken
from tests.support.issuers import new_key, part, sign_raw

KEY = new_key()
CLAIMS = {"iss": "https://id.example.com", "sub": "ann"}


def test_a_token_is_read():
    """Header and claims are as its issuer wrote them."""
    found = json_web_tokens.read(KEY.sign(CLAIMS))
    assert isinstance(found, UnverifiedToken)
    assert (found.algorithm, found.key_id, found.claims) == ("ES256", "k1", CLAIMS)


def test_no_algorithm_needs_a_secret():
    """Neither `none` nor HMAC, by which a public key would be the secret."""
    assert not [name for name in ALGORITHMS if name == "none" or name.startswith("HS")]


ES256 = part({"alg": "ES256"})
MALFORMED = {
    "only a beginning": "eyJ",
    "empty parts": "eyJ..",
    "no signature": f"{ES256}.{part(CLAIMS)}.",
    "five parts, as if encrypted": f"{ES256}.{part(CLAIMS)}.a.b.c",
    "padding": f"{ES256}.{part(CLAIMS)}.a=",
    "another alphabet": f"{ES256}.{part(CLAIMS)}.é",
    "a header that is no object": f"{part([])}.{part(CLAIMS)}.a",
    "claims that are no object": f"{ES256}.{part([CLAIMS])}.a",
    "claims that end early": f"{ES256}.{part(b'{')}.a",
    "claims that are no text": f"{ES256}.{part(bytes([255]))}.a",
    "a claim twice": ES256 + "." + part(b'{"sub": "ann", "sub": "bob"}') + ".a",
    "a claim within another twice": ES256 + "." + part(b'{"org": {"id": 1, "id": 2}}') + ".a",
    "the algorithm twice": part(b'{"alg": "none", "alg": "ES256"}') + "." + part(CLAIMS) + ".a",
    "a number that is none": ES256 + "." + part(b'{"exp": Infinity}') + ".a",
    "a number of 5000 digits": ES256 + "." + part(b'{"exp": ' + b"9" * 5000 + b"}") + ".a",
    "arrays in arrays": f"{ES256}.{part(b'[' * 20_000)}.a",
    "no algorithm": f"{part({'typ': 'JWT'})}.{part(CLAIMS)}.a",
    "several algorithms": f"{part({'alg': ['ES256']})}.{part(CLAIMS)}.a",
    "a key id that is a number": f"{part({'alg': 'ES256', 'kid': 7})}.{part(CLAIMS)}.a",
    "a key id that is an object": f"{part({'alg': 'ES256', 'kid': {'a': 1}})}.{part(CLAIMS)}.a",
    "an extension": f"{part({'alg': 'ES256', 'crit': ['exp']})}.{part(CLAIMS)}.a",
    "an unencoded payload": f"{part({'alg': 'ES256', 'b64': False, 'crit': ['b64']})}.{part(CLAIMS)}.a",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_a_token_is_refused(name: str):
    """Also a name that is given twice: readers would differ in which one counts."""
    found = json_web_tokens.read(MALFORMED[name])
    assert isinstance(found, TokenRefusal)
    assert found.reason is Reason.MALFORMED


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str):
    """Nothing that a caller sends raises."""
    assert isinstance(json_web_tokens.read(f"eyJ{text}"), UnverifiedToken | TokenRefusal)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda of: st.lists(of) | st.dictionaries(st.text(), of)
    )
)
@settings(max_examples=40)
def test_any_claims_are_read_or_refused(claims: object):
    """Neither does any JSON in it."""
    text = f"{part({'alg': 'ES256'})}.{part(json.dumps(claims).encode())}.a"
    assert isinstance(json_web_tokens.read(text), UnverifiedToken | TokenRefusal)


@pytest.mark.parametrize("algorithm", ["RS256", "PS384", "ES256", "ES384", "ES512", "EdDSA"])
def test_a_signature_is_verified(algorithm: str):
    """By its own key only, and not after a change."""
    key, other = new_key(algorithm=algorithm), new_key(algorithm="ES256")
    text = key.sign(CLAIMS)
    token = json_web_tokens.read(text)
    assert isinstance(token, UnverifiedToken)
    assert json_web_tokens.has_valid_signature(token, key.private.public_key())
    assert not json_web_tokens.has_valid_signature(token, other.private.public_key())
    head, _, signature = text.split(".")
    changed = json_web_tokens.read(f"{head}.{part(CLAIMS | {'sub': 'bob'})}.{signature}")
    assert isinstance(changed, UnverifiedToken)
    assert not json_web_tokens.has_valid_signature(changed, key.private.public_key())


def test_a_public_key_is_no_secret():
    """A token signed by HMAC with the public key, as text, is not valid (CVE-2016-10555)."""
    key = new_key(algorithm="RS256")
    for algorithm in ("HS256", "HS512"):
        text = sign_raw(key, {"alg": algorithm, "kid": "k1"}, CLAIMS, algorithm, b"x" * 64)
        token = json_web_tokens.read(text)
        assert isinstance(token, UnverifiedToken)
        for secret in (key.private.public_key(), key.pem, b"x" * 64):
            assert not json_web_tokens.has_valid_signature(token, secret)


TOKEN = KEY.sign(CLAIMS)
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.="


@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(LETTERS))
@settings(max_examples=60)
def test_no_letter_of_a_token_can_be_changed(place: int, letter: str):
    """Also not the last bits of its signature, which stand for nothing (RFC 4648, 3.5)."""
    changed = TOKEN[:place] + letter + TOKEN[place + 1 :]
    token = json_web_tokens.read(changed)
    is_valid = isinstance(token, UnverifiedToken) and json_web_tokens.has_valid_signature(
        token, KEY.private.public_key()
    )
    assert is_valid == (changed == TOKEN)


def test_the_unused_bits_of_a_signature_cannot_be_changed():
    """Otherwise one token would have several texts."""
    others = [TOKEN[:-1] + letter for letter in LETTERS[:64] if letter != TOKEN[-1]]
    tokens = [token for text in others if isinstance(token := json_web_tokens.read(text), UnverifiedToken)]
    assert len(tokens) == 63
    assert not any(json_web_tokens.has_valid_signature(token, KEY.private.public_key()) for token in tokens)
