"""What a browser keeps while somebody signs in at an issuer."""

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.rules import sign_in_attempts
from gateway.access.rules.sign_in_attempts import TTL_SECONDS, SignInAttempt

KEY, OTHER = b"k" * 32, b"o" * 32
ATTEMPT = SignInAttempt(issuer="id", state="s" * 43, next="/dashboard/usage")
NOW = 1000.0
CLAIMS = {"aud": "replicate-gateway-sign-in", "exp": 2000, "issuer": "id", "state": "s", "next": "/dashboard"}


def signed(key: bytes | None = KEY, algorithm: str = "HS256", **more: object) -> str:
    claims = {name: value for name, value in (CLAIMS | more).items() if value is not None}
    return jwt.encode(claims, key, algorithm=algorithm)


@settings(max_examples=25)
@given(st.text(), st.text(), st.text(), st.binary(min_size=32, max_size=32))
def test_cookie_brings_back_what_was_put_in(issuer: str, state: str, page: str, key: bytes):
    attempt = SignInAttempt(issuer=issuer, state=state, next=page)
    cookie = sign_in_attempts.seal(attempt, key, NOW)
    assert sign_in_attempts.unseal(cookie, key, NOW) == attempt
    assert sign_in_attempts.unseal(cookie, OTHER, NOW) is None


def test_cookie_lasts_ten_minutes():
    cookie = sign_in_attempts.seal(ATTEMPT, KEY, NOW)
    assert TTL_SECONDS <= 600
    assert sign_in_attempts.unseal(cookie, KEY, NOW + TTL_SECONDS - 1) == ATTEMPT
    assert sign_in_attempts.unseal(cookie, KEY, NOW + TTL_SECONDS) is None


def test_cookie_names_neither_nonce_nor_verifier():
    """They follow from the state, and from a key that the gateway keeps."""
    cookie = sign_in_attempts.seal(ATTEMPT, KEY, NOW)
    derived = [make(ATTEMPT.state, KEY) for make in (sign_in_attempts.nonce_of, sign_in_attempts.verifier_of)]
    assert len({*derived, ATTEMPT.state}) == 3
    told = str(jwt.decode(cookie, options={"verify_signature": False}))
    assert not any(each in cookie or each in told for each in derived)
    assert all(len(each) == 43 for each in derived)
    assert sign_in_attempts.verifier_of(ATTEMPT.state, OTHER) not in derived
    assert sign_in_attempts.verifier_of("t" * 43, KEY) not in derived


@pytest.mark.parametrize(
    "cookie",
    [
        "", "nonsense", "a.b.c", "\udcff", signed(OTHER), signed(None, "none"),
        signed(b"k" * 64, "HS512"),
        signed(aud="replicate-gateway-dashboard"), signed(aud=None), signed(exp=None), signed(exp=999),
        signed(issuer=1), signed(state=None), signed(next=[]),
    ],
)  # fmt: skip
def test_any_other_cookie_is_none(cookie: str):
    """A session's too, and one without a signature."""
    assert sign_in_attempts.unseal(cookie, KEY, NOW) is None


def test_valid_cookie_of_the_table_is_accepted():
    assert sign_in_attempts.unseal(signed(), KEY, NOW) is not None
