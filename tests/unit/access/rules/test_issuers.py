"""Whom the claims of a token name."""

import time
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.rules import issuers
from gateway.access.rules.issuers import ExternalIdentity
from gateway.access.rules.json_web_tokens import Reason, TokenRefusal
from tests.support.clock import START
from tests.support.issuers import AUDIENCE, ISSUER, claims_for, issuer, new_key

KEY = new_key()

BY_CLAIM = {"team": None, "team_claim": "org.id", "teams": {"o1": "red", "o2": "blue", "o3": "red"}}


def identified(claims: dict[str, Any], **settings: Any) -> tuple[str, str] | Reason:
    found = issuers.identify(issuer(**settings), claims_for(START) | claims)
    return (found.team, found.user) if isinstance(found, ExternalIdentity) else found.reason


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, "id"),
        ({"aud": ["other", AUDIENCE]}, "id"),
        ({"aud": "second"}, "id2"),
        ({"aud": ["second", AUDIENCE]}, "id"),
        ({"iss": f"{ISSUER}/"}, Reason.UNKNOWN_ISSUER),
        ({"iss": ISSUER.upper()}, Reason.UNKNOWN_ISSUER),
        ({"iss": [ISSUER]}, Reason.UNKNOWN_ISSUER),
        ({"iss": None}, Reason.UNKNOWN_ISSUER),
        ({"aud": f"{AUDIENCE}/"}, Reason.AUDIENCE),
        ({"aud": None}, Reason.AUDIENCE),
        ({"aud": []}, Reason.AUDIENCE),
        ({"aud": [[AUDIENCE]]}, Reason.AUDIENCE),
        ({"aud": [AUDIENCE, 7]}, Reason.AUDIENCE),
        ({"aud": {AUDIENCE: True}}, Reason.AUDIENCE),
    ],
)
def test_a_token_is_of_the_issuer_and_audience_that_it_names(claims, expected):
    """Exactly: identifiers are compared as texts (OpenID Connect Core, 2)."""
    known = (issuer(), issuer(name="id2", audiences=frozenset({"second"})))
    found = issuers.issuer_of(known, claims_for(START) | claims)
    assert (found.reason if isinstance(found, TokenRefusal) else found.name) == expected


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, None),
        ({"exp": START - 29}, None),
        ({"exp": START - 30}, Reason.EXPIRED),
        ({"nbf": START + 30}, None),
        ({"nbf": START + 31}, Reason.NOT_YET_VALID),
        ({"exp": START + 0.5, "nbf": START - 0.5}, None),
        ({"exp": None}, Reason.CLAIM),
        ({"exp": str(START + 60)}, Reason.CLAIM),
        ({"exp": True}, Reason.CLAIM),
        ({"exp": [START + 60]}, Reason.CLAIM),
        ({"exp": float("inf")}, Reason.CLAIM),
        ({"exp": 10**400}, Reason.CLAIM),
        ({"exp": -(10**300)}, Reason.EXPIRED),
        ({"nbf": "now"}, Reason.CLAIM),
        ({"nbf": None}, Reason.CLAIM),
    ],
)
def test_a_token_is_valid_for_its_time_only(claims, expected):
    """With the leeway for clocks that differ."""
    found = issuers.check_times(issuer(), claims_for(START) | claims, START)
    assert (found and found.reason) == expected


@pytest.mark.parametrize(
    ("claims", "settings", "expected"),
    [
        ({}, {}, ("red", "id:ann")),
        ({}, {"user_prefix": ""}, ("red", "ann")),
        ({"sub": ""}, {}, Reason.CLAIM),
        ({"sub": 7}, {}, Reason.CLAIM),
        ({"sub": ["ann"]}, {}, Reason.CLAIM),
        ({"sub": [["ann"]]}, {}, Reason.CLAIM),
        ({"sub": None}, {}, Reason.CLAIM),
        ({"sub": "a" * 197}, {}, ("red", "id:" + "a" * 197)),
        ({"sub": "a" * 198}, {}, Reason.CLAIM),
        ({"sub": "ann\n"}, {}, Reason.CLAIM),
        ({"sub": "ann\ud800"}, {}, Reason.CLAIM),
        ({"uid": "u1"}, {"user_claim": "uid"}, ("red", "id:u1")),
        ({}, {"user_claim": "uid"}, Reason.CLAIM),
        ({"email": "a@b.c", "email_verified": True}, {"user_claim": "email"}, ("red", "id:a@b.c")),
        ({"email": "a@b.c", "email_verified": "true"}, {"user_claim": "email"}, Reason.EMAIL_UNVERIFIED),
        ({"email": "a@b.c", "email_verified": False}, {"user_claim": "email"}, Reason.EMAIL_UNVERIFIED),
        ({"email": "a@b.c"}, {"user_claim": "email"}, Reason.EMAIL_UNVERIFIED),
        ({"my": {"email": "a@b.c"}}, {"user_claim": "my.email"}, Reason.EMAIL_UNVERIFIED),
        ({"https://a.b/email": "a@b.c"}, {"user_claim": "https://a.b/email"}, Reason.EMAIL_UNVERIFIED),
        ({"org": {"id": "o2"}}, BY_CLAIM, ("blue", "id:ann")),
        ({"org.id": "o2"}, BY_CLAIM, ("blue", "id:ann")),
        ({"org.id": "o2", "org": {"id": "o1"}}, BY_CLAIM, ("blue", "id:ann")),
        ({"org": {"id": ["o2", "unknown"]}}, BY_CLAIM, ("blue", "id:ann")),
        ({"org": {"id": ["o1", "o3"]}}, BY_CLAIM, ("red", "id:ann")),
        ({"org": {"id": ["o1", "o2"]}}, BY_CLAIM, Reason.TEAM),
        ({"org": {"id": "O1"}}, BY_CLAIM, Reason.TEAM),
        ({"org": {"id": "red"}}, BY_CLAIM, Reason.TEAM),
        ({"org": {"id": []}}, BY_CLAIM, Reason.CLAIM),
        ({"org": {"id": [["o1"]]}}, BY_CLAIM, Reason.CLAIM),
        ({"org": {"id": {"o1": "o1"}}}, BY_CLAIM, Reason.CLAIM),
        ({"org": {"id": 1}}, BY_CLAIM, Reason.CLAIM),
        ({"org": "o1"}, BY_CLAIM, Reason.CLAIM),
        ({}, BY_CLAIM, Reason.CLAIM),
    ],
)
def test_claims_name_a_user_of_a_team(claims, settings, expected):
    """Nothing is guessed: what is missing, ambiguous or of another form is refused."""
    assert identified(claims, **settings) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("read  predict openid", {"read", "predict", "openid"}),
        ("", set()),
        (["read", "predict"], {"read", "predict"}),
        ([], set()),
        ([["read"]], Reason.CLAIM),
        ({"read": True}, Reason.CLAIM),
        (None, Reason.CLAIM),
        (7, Reason.CLAIM),
    ],
)
def test_a_claim_may_name_scopes(given, expected):
    """As a list, or separated by spaces as OAuth has it."""
    found = issuers.identify(issuer(scope_claim="permissions"), claims_for(START, permissions=given))
    assert (found.reason if isinstance(found, TokenRefusal) else found.scopes) == expected


TIMES = st.none() | st.sampled_from([-3600, -60, -20, 20, 60, 3600])


@given(TIMES, TIMES, st.sampled_from([AUDIENCE, "other", ["other"], ["other", AUDIENCE], [], None]))
@settings(max_examples=60)
def test_times_and_audience_are_those_of_pyjwt(expires, begins, audience):
    """A token is accepted exactly if the library would accept it."""
    now = time.time()
    claims = claims_for(now, aud=audience, exp=None if expires is None else int(now + expires))
    claims |= {} if begins is None else {"nbf": int(now + begins)}
    try:
        jwt.decode(
            KEY.sign(claims),
            KEY.private.public_key(),
            ["ES256"],
            {"require": ["exp", "aud"]},
            audience=AUDIENCE,
            issuer=ISSUER,
            leeway=30,
        )
        expected = True
    except jwt.InvalidTokenError:
        expected = False
    chosen = issuers.issuer_of((issuer(),), claims)
    is_accepted = not isinstance(chosen, TokenRefusal) and issuers.check_times(chosen, claims, now) is None
    assert is_accepted == expected


def test_refusals_quote_little_of_a_token():
    """And nothing of the config: neither other issuers nor the audience."""
    long = issuers.issuer_of((issuer(),), {"iss": "\n" * 10_000})
    other = issuers.issuer_of((issuer(),), claims_for(START, aud="x"))
    assert isinstance(long, TokenRefusal)
    assert isinstance(other, TokenRefusal)
    assert len(long.detail) < 1000
    assert long.detail.isprintable()
    assert AUDIENCE not in other.detail
    assert ISSUER not in long.detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda of: st.lists(of, max_size=3) | st.dictionaries(st.sampled_from(["id", "org", "sub"]), of, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(["iss", "aud", "exp", "nbf", "sub", "org", "org.id", "permissions"])


@given(st.dictionaries(NAMES, JSON))
def test_any_claims_have_an_answer(claims: dict[str, Any]):
    """Whatever an issuer signs, nothing raises, and whoever is identified is of a team of the config."""
    chosen = issuer(scope_claim="permissions", **BY_CLAIM)
    assert isinstance(issuers.issuer_of((chosen,), claims), TokenRefusal) or claims.get("iss") == ISSUER
    issuers.check_times(chosen, claims, START)
    found = issuers.identify(chosen, claims)
    assert isinstance(found, TokenRefusal) or (found.team in {"red", "blue"} and found.user.startswith("id:"))
