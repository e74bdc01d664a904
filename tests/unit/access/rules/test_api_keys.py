"""Keys: made, recognised, judged; and secrets struck out of texts."""

import re
import secrets
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.rules import api_keys
from gateway.domain.records import Key

RANDOMNESS = st.binary(min_size=api_keys.RANDOM_BYTES, max_size=api_keys.RANDOM_BYTES)


def record(**changes) -> Key:
    return Key(**{"id": "k", "team": "acme", "name": "web", "sha256": "0" * 64, "created_at": 0.0, **changes})


@given(RANDOMNESS)
def test_new_key_is_found_by_its_id_and_matches_its_digest(randomness):
    """What was handed out works."""
    minted = api_keys.mint(randomness)
    assert re.fullmatch(r"rgw_[a-z0-9]{12}_[0-9A-Za-z]{32,}", minted.key)
    assert api_keys.parse(minted.key) == minted.id
    assert minted.sha256 == api_keys.digest(minted.key)
    assert api_keys.matches(minted.key, minted.sha256)


@given(RANDOMNESS, st.data())
def test_key_with_a_changed_character_never_matches(randomness, data):
    """A key that is almost right is refused."""
    minted = api_keys.mint(randomness)
    position = data.draw(st.integers(0, len(minted.key) - 1))
    other = data.draw(st.characters().filter(lambda c: c != minted.key[position]))
    mutated = minted.key[:position] + other + minted.key[position + 1 :]
    assert not api_keys.matches(mutated, minted.sha256)


@given(RANDOMNESS, st.text(min_size=1, max_size=5), st.booleans())
def test_key_with_added_characters_never_matches(randomness, extra, before):
    """A key with a newline at its end is another key."""
    minted = api_keys.mint(randomness)
    longer = extra + minted.key if before else minted.key + extra
    assert not api_keys.matches(longer, minted.sha256)
    assert api_keys.parse(minted.key + "\n") is None


@given(RANDOMNESS, st.integers(0, 48))
def test_part_of_a_key_never_matches(randomness, length):
    """A truncated key is refused."""
    minted = api_keys.mint(randomness)
    assert not api_keys.matches(minted.key[:length], minted.sha256)


@given(RANDOMNESS, RANDOMNESS)
def test_two_draws_give_two_keys(one, other):
    """No two teams hold one key, unless chance itself repeats."""
    used = 36**12 * 62**32
    is_same = int.from_bytes(one) % used == int.from_bytes(other) % used
    assert (api_keys.mint(one).key == api_keys.mint(other).key) is is_same


def test_secret_has_more_than_190_bits():
    """A key cannot be guessed: 62 letters, at least 32 of them, each as likely as the next."""
    assert 62**32 > 2**190
    seen = "".join(api_keys.new_key(secrets.token_bytes).key.split("_")[2] for _ in range(2000))
    counts = [seen.count(letter) for letter in set(seen)]
    assert len(counts) == 62
    expected = len(seen) / 62
    assert all(abs(count - expected) < 7 * expected**0.5 for count in counts)


def test_thousand_keys_differ():
    """Ids and keys do not repeat."""
    minted = sorted(api_keys.new_key(secrets.token_bytes) for _ in range(1000))
    assert all(a.id != b.id and a.key != b.key for a, b in pairwise(minted))


def test_short_randomness_is_refused():
    """A broken source of randomness stops the program and makes no weak key."""
    with pytest.raises(ValueError, match="48 random bytes, got 47"):
        api_keys.mint(bytes(47))


def test_new_key_repr_hides_the_secret():
    """A debugger's line or a log of the new key has its id only."""
    minted = api_keys.mint(bytes(48))
    assert repr(minted) == "Minted(id='aaaaaaaaaaaa')"


@pytest.mark.parametrize(
    "presented",
    [
        "",
        "rgw_",
        "r8_abcdefghijklmnopqrstuvwxyz0123456789",
        "rgw_short_" + "a" * 32,
        "rgw_ABCDEFGHIJKL_" + "a" * 32,
        "rgw_abcdefghijkl_" + "a" * 31,
        "rgw_abcdefghijkl_" + "a" * 129,
        "rgw_abcdefghijkl_" + "a" * 31 + "-",
        " rgw_abcdefghijkl_" + "a" * 32,
        "rgw_abcdefghijkl_" + "ａ" * 32,
    ],
)
def test_text_that_is_no_key_has_no_id(presented):
    """The store is not asked about junk."""
    assert api_keys.parse(presented) is None


@given(st.text(st.characters()), st.text())
def test_matching_never_raises(presented, sha256):
    """A header of broken bytes is refused like any wrong key."""
    assert api_keys.matches(presented, sha256) is (api_keys.digest(presented) == sha256.lower())


def test_header_that_is_not_utf8_does_not_match():
    """Aiohttp passes bytes that are not UTF-8 on as lone surrogates."""
    assert not api_keys.matches("rgw_\udcff", "0" * 64)
    assert api_keys.parse("rgw_\udcff") is None


@pytest.mark.parametrize(
    ("changes", "now", "valid"),
    [
        ({}, 1e12, True),
        ({"expires_at": 100.0}, 99.999, True),
        ({"expires_at": 100.0}, 100.0, False),
        ({"revoked_at": 100.0}, 99.0, True),
        ({"revoked_at": 100.0}, 100.0, False),
        ({"revoked_at": 100.0, "expires_at": 50.0}, 60.0, False),
        ({"revoked_at": 50.0, "expires_at": 100.0}, 60.0, False),
        ({"revoked_at": 0.0}, 0.0, False),
    ],
)
def test_key_ends_at_expiry_or_revocation_whichever_is_first(changes, now, valid):
    """A revoked key stops at once, an expired one on the second."""
    assert api_keys.is_valid(record(**changes), now) is valid


KEY = api_keys.mint(bytes(range(48))).key
TICKET = "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key {KEY} was used", KEY),
        (f"x{KEY}x", KEY),
        (f"Authorization: Bearer {KEY}", KEY),
        ("authorization: bearer abc", "abc"),
        ("Authorization: Token 0123456789abcdef0123", "0123456789abcdef0123"),
        ("token r8_0123456789abcdefghijklmnopqrstuvwxyz0", "r8_0123456789abcdefghijklmnopqrstuvwxyz0"),
        ("signed with whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        (f"GET /v1/streams/{TICKET} 200", TICKET),
        (f"GET /v1/files/rgws-{TICKET} 200", TICKET),
        (f"https://gateway.example.com/outputs/{TICKET}/out.webp", TICKET),
        ("https://stream.replicate.com/v1/files/bcwr-3okdfv3o2wehstv5f2okyftwxy57", "3okdfv3o2wehstv5f2okyftwxy57"),
        (f"ticket={TICKET}", TICKET),
        ("GET /x?token=hunter2222&n=1", "hunter2222"),
        ("https://b.s3.example.com/o?X-Amz-Signature=deadbeef&x=1", "deadbeef"),
        ("redis://user:pass@w@redis.example.com:6379/0", "pass@w"),
        ("input data:image/png;base64,iVBORw0KGgoAAAANSUhEUg== was bad", "iVBORw0KGgo"),
        ("data:,Hello%2C%20World%21%20and%20more", "Hello"),
        ("page holds eyJhbGciOiJIUzI1NiJ9.eyJ0ZWFtIjoiYWNtZSJ9.c2lnbmF0dXJl", "eyJ0ZWFtIjoiYWNtZSJ9"),
    ],
)
def test_secrets_are_redacted(text, secret):
    """Logs and errors can be passed on."""
    shown = api_keys.conceal(text)
    assert secret not in shown
    assert api_keys.REDACTED in shown


@pytest.mark.parametrize(
    "text",
    [
        "prediction 3h5rbgzcv9rgc0cj8tgr9zpsd8 finished",
        "GET /v1/predictions/3h5rbgzcv9rgc0cj8tgr9zpsd8 200",
        "version 5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa",
        "the token was refused",
        "https://gateway.example.com/v1/files",
        "somebody@example.com wrote",
        "",
    ],
)
def test_other_text_is_not_redacted(text):
    """Logs stay readable."""
    assert api_keys.conceal(text) == text


@given(st.text(), RANDOMNESS, st.text())
def test_key_is_redacted_in_any_text(before, randomness, after):
    """Whatever surrounds a key, it is redacted."""
    minted = api_keys.mint(randomness)
    assert minted.key not in api_keys.conceal(before + minted.key + after)
    assert minted.key.split("_")[2] not in api_keys.conceal(before + minted.key + after)


@given(st.text(alphabet="abcR8_eyJ.=/: \t52rgw-dta,wh", max_size=60))
def test_short_and_long_texts_are_redacted_alike(text):
    """A text that is skipped for speed cannot contain a secret."""
    patient = text
    for pattern, replacement in api_keys._SECRETS:
        patient = pattern.sub(replacement, patient)
    assert api_keys.conceal(text) == patient
