"""Tokens of issuers: every way to forge one, and what is remembered of a valid one."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from gateway.access.external_identities import ExternalIdentities
from gateway.access.issuer_keys import IssuerKeys
from gateway.access.ports import KeysUnread
from gateway.access.rules.issuers import IssuerSettings
from gateway.access.rules.json_web_tokens import Reason
from gateway.errors import IssuerUnavailable, Unauthenticated
from gateway.runtime.live import LiveSettings
from tests.support.clock import START, ManualClock, settle
from tests.support.issuers import FakeKeySource, claims_for, issuer, jwks, new_key, part, sign_raw
from tests.support.observer import RecordingObserver

EC, RSA, STRANGER = new_key("e"), new_key("r", "RS256"), new_key("e")
CLAIMS = claims_for(START)


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def source() -> FakeKeySource:
    return FakeKeySource(jwks(EC, RSA))


@pytest.fixture
def settings() -> LiveSettings[IssuerSettings]:
    return LiveSettings(IssuerSettings(issuers=(issuer(),), max_token_bytes=8192, max_cached_tokens=3))


@pytest.fixture
async def identities(settings, source, clock: ManualClock, observer: RecordingObserver):
    keys = IssuerKeys(settings, source, clock, observer)
    yield ExternalIdentities(settings, keys, clock, observer)
    await keys.close()


async def refused(identities: ExternalIdentities, observer: RecordingObserver, token: str) -> str:
    with pytest.raises((Unauthenticated, IssuerUnavailable)) as caught:
        await identities.identify(token)
    assert caught.value.detail.isprintable()
    assert len(caught.value.detail) < 300
    return observer.last("token_refused")[0]


async def test_a_valid_token_names_its_user(identities):
    """With either kind of key."""
    for key in (EC, RSA):
        found = await identities.identify(key.sign(CLAIMS))
        assert (found.team, found.user, found.ends_at) == ("red", "id:ann", START + 3630)


def claims(**more: Any) -> Callable[[], str]:
    return lambda: EC.sign(claims_for(START, **more))


def header(**more: Any) -> Callable[[], str]:
    return lambda: EC.sign(CLAIMS, **more)


def raw(head: dict[str, Any], body: Any = CLAIMS, *with_secret: Any) -> Callable[[], str]:
    return lambda: sign_raw(EC, head, body, *with_secret)


def unsigned(head: dict[str, Any], signature: str = "AA") -> Callable[[], str]:
    return lambda: f"{part(head)}.{part(CLAIMS)}.{signature}"


def spliced() -> str:
    """The claims of one token with the signature of another."""
    head, _, signature = EC.sign(CLAIMS).split(".")
    return f"{head}.{part(CLAIMS | {'sub': 'admin'})}.{signature}"


def of_others(**more: Any) -> Callable[[], str]:
    return lambda: STRANGER.sign(CLAIMS, **more)


ES, OWN = {"alg": "ES256", "kid": "e"}, STRANGER.jwk
HOSTILE: dict[str, tuple[Callable[[], str], Reason]] = {
    "no signature": (unsigned({"alg": "none"}), Reason.ALGORITHM),
    "no signature, spelled otherwise": (unsigned({"alg": "NoNe", "kid": "e"}), Reason.ALGORITHM),
    "no algorithm": (unsigned({"alg": "", "kid": "e"}), Reason.ALGORITHM),
    "an empty signature": (unsigned(ES, ""), Reason.MALFORMED),
    "a short signature": (unsigned(ES), Reason.SIGNATURE),
    "a signature of zeros": (unsigned(ES, part(bytes(64))), Reason.SIGNATURE),
    "HMAC with the public key": (raw({"alg": "HS256", "kid": "r"}, CLAIMS, "HS256", b"x" * 32), Reason.ALGORITHM),
    "HMAC in small letters": (raw({"alg": "hs256", "kid": "e"}, CLAIMS, "HS256", b"x" * 32), Reason.ALGORITHM),
    "another algorithm than the key's": (unsigned({"alg": "ES384", "kid": "e"}), Reason.UNKNOWN_KEY),
    "the key of another type": (header(kid="r"), Reason.UNKNOWN_KEY),
    "an RSA key and PSS, where the key says PKCS": (unsigned({"alg": "PS256", "kid": "r"}), Reason.UNKNOWN_KEY),
    "a stranger's key": (of_others(), Reason.SIGNATURE),
    "a stranger's key in the header": (of_others(jwk=OWN), Reason.SIGNATURE),
    "a stranger's key at an address": (of_others(jku="https://evil.example/jwks"), Reason.SIGNATURE),
    "a stranger's certificate at an address": (of_others(x5u="https://evil.example/x"), Reason.SIGNATURE),
    "a stranger's certificate": (of_others(x5c=["AAAA"]), Reason.SIGNATURE),
    "the signature of another token": (spliced, Reason.SIGNATURE),
    "a key that is a path": (of_others(kid="../../../dev/null"), Reason.UNKNOWN_KEY),
    "a key that is a query": (of_others(kid="e' UNION SELECT 'x"), Reason.UNKNOWN_KEY),
    "a key that is an address": (of_others(kid="https://evil.example/key"), Reason.UNKNOWN_KEY),
    "a long key id": (of_others(kid="e" * 5000), Reason.UNKNOWN_KEY),
    "no key id, and two kinds of keys": (raw({"alg": "ES256"}, CLAIMS | {"exp": 1}), Reason.EXPIRED),
    "an extension": (header(crit=["exp"], exp=1), Reason.MALFORMED),
    "an unencoded payload": (raw(ES | {"b64": False, "crit": ["b64"]}), Reason.MALFORMED),
    "a compressed payload": (raw(ES | {"zip": "DEF"}, b"x\x9c"), Reason.MALFORMED),
    "too long": (claims(note="x" * 8000), Reason.TOO_LONG),
    "a claim twice": (raw(ES, json.dumps(CLAIMS)[:-1].encode() + b', "sub": "bob"}'), Reason.MALFORMED),
    "arrays in arrays": (raw(ES, b'{"a":' * 1000 + b"1" + b"}" * 1000), Reason.MALFORMED),
    "another issuer": (claims(iss="https://evil.example"), Reason.UNKNOWN_ISSUER),
    "another spelling of the issuer": (claims(iss="https://id.example.com/"), Reason.UNKNOWN_ISSUER),
    "several issuers": (raw(ES, CLAIMS | {"iss": [CLAIMS["iss"]]}), Reason.UNKNOWN_ISSUER),
    "another audience": (claims(aud="https://other.example"), Reason.AUDIENCE),
    "no audience": (claims(aud=None), Reason.AUDIENCE),
    "an audience in an array in an array": (raw(ES, CLAIMS | {"aud": [[CLAIMS["aud"]]]}), Reason.AUDIENCE),
    "expired": (claims(exp=START - 31), Reason.EXPIRED),
    "never expires": (claims(exp=None), Reason.CLAIM),
    "expires as a text": (raw(ES, CLAIMS | {"exp": str(START + 60)}), Reason.CLAIM),
    "not valid yet": (claims(nbf=START + 60), Reason.NOT_YET_VALID),
    "no user": (claims(sub=None), Reason.CLAIM),
    "a user that is a number": (raw(ES, CLAIMS | {"sub": 1}), Reason.CLAIM),
    "a user that is an array": (raw(ES, CLAIMS | {"sub": ["ann"]}), Reason.CLAIM),
    "a user with a line break": (claims(sub="ann\nbob"), Reason.CLAIM),
    "a message that a session has ended": (header(typ="logout+jwt"), Reason.CLAIM),
    "a security event": (header(typ="application/SecEvent+JWT"), Reason.CLAIM),
    "an event without a type": (
        claims(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
        Reason.CLAIM,
    ),
    "a long user": (claims(sub="a" * 201), Reason.CLAIM),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_forged_token_is_refused(identities, observer, source, clock, name):
    """And makes the gateway ask nobody but the issuer, once."""
    await identities.identify(EC.sign(CLAIMS))
    make, expected = HOSTILE[name]
    assert await refused(identities, observer, make()) == expected
    await clock.advance(10)
    assert await refused(identities, observer, make()) == expected
    assert source.reads == 1 + (expected is Reason.UNKNOWN_KEY)
    assert identities.remembered == 1


async def test_a_token_without_a_key_id_needs_a_single_key(identities, observer, source):
    """Issuers with one key may leave the id out."""
    key = new_key(None)
    source.body = jwks(key, RSA)
    assert (await identities.identify(key.sign(CLAIMS))).user == "id:ann"


async def test_an_algorithm_that_the_config_leaves_out_is_refused(identities, settings, observer):
    """Even if the issuer has a key for it."""
    settings.replace(IssuerSettings(issuers=(issuer(algorithms=frozenset({"RS256"})),)))
    assert await refused(identities, observer, EC.sign(CLAIMS)) == Reason.ALGORITHM
    assert (await identities.identify(RSA.sign(CLAIMS))).user == "id:ann"


async def test_a_verified_token_is_remembered_until_it_expires(identities, observer, source, clock):
    """It is verified once: afterwards neither the issuer nor a signature is needed."""
    token = EC.sign(CLAIMS)
    first = await identities.identify(token)
    assert await identities.identify(token) is first
    await clock.advance(3629)
    assert await identities.identify(token) is first
    await clock.advance(1)
    assert await refused(identities, observer, token) == Reason.EXPIRED
    assert identities.remembered == 0


async def test_a_verified_token_ends_with_its_key(identities, observer, source, clock):
    """An issuer withdraws a key because somebody else has it."""
    token = EC.sign(CLAIMS)
    await identities.identify(token)
    source.body = jwks(RSA)
    await clock.advance(10)
    assert await refused(identities, observer, STRANGER.sign(CLAIMS, kid="new")) == Reason.UNKNOWN_KEY
    assert await refused(identities, observer, token) == Reason.UNKNOWN_KEY


async def test_a_reload_forgets_verified_tokens(identities, settings, observer):
    """The config may map them to another team now, or not at all."""
    token = EC.sign(CLAIMS)
    await identities.identify(token)
    settings.replace(IssuerSettings(issuers=(issuer(team="blue"),)))
    assert (await identities.identify(token)).team == "blue"
    settings.replace(IssuerSettings(issuers=(issuer(audiences=frozenset({"other"})),)))
    assert await refused(identities, observer, token) == Reason.AUDIENCE


async def test_a_reload_counts_for_a_token_that_waits_for_its_key(identities, settings, source):
    """What the old config made of it is not used."""
    source.may_answer.clear()
    asking = asyncio.create_task(identities.identify(EC.sign(CLAIMS)))
    await settle()
    settings.replace(IssuerSettings(issuers=(issuer(team="blue"),)))
    source.may_answer.set()
    assert (await asking).team == "blue"


async def test_the_number_of_remembered_tokens_is_bounded(identities):
    """The oldest is forgotten, and verified again if it is used again."""
    for number in range(10):
        assert (await identities.identify(EC.sign(claims_for(START, str(number))))).user == f"id:{number}"
    assert identities.remembered == 3


async def test_an_issuer_that_is_away_is_no_fault_of_the_caller(identities, source, observer, caplog):
    """503: a page that signs in again because of a 401 would be of no use."""
    source.trouble = KeysUnread("timeout", "no answer in time")
    with pytest.raises(IssuerUnavailable) as caught:
        await identities.identify(EC.sign(CLAIMS))
    assert caught.value.retry_after == 10
    assert observer.of("token_refused") == [Reason.KEYS_UNAVAILABLE]


def test_only_what_looks_like_a_token_is_read_as_one(identities, settings):
    """Keys of other forms go on to be looked for, and without issuers everything does."""
    token = EC.sign(CLAIMS)
    assert identities.concerns(token)
    assert not any(map(identities.concerns, ("", "eyJ", "rgw_a_b", "a.b.c", token + ".x")))
    settings.replace(IssuerSettings())
    assert not identities.concerns(token)
