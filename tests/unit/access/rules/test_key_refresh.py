"""When the keys of an issuer are read."""

from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.rules import json_web_keys, key_refresh
from gateway.access.rules.issuers import KeyLocation
from gateway.access.rules.json_web_tokens import Reason, TokenRefusal
from gateway.access.rules.key_refresh import KnownKeys, Next
from tests.support.issuers import ISSUER, jwks, new_key

WHERE = KeyLocation(issuer=ISSUER, ttl_seconds=1000, stale_seconds=5000)
KEYS = json_web_keys.parse(jwks(new_key("k1")), 10)
READ = KnownKeys(keys=KEYS, read_at=100.0, tried_at=99.0)


def look_up(known: KnownKeys, now: float, kid: str = "k1", *, may_read: bool = True) -> object:
    found = key_refresh.look_up(known, WHERE, kid, "ES256", now, may_read=may_read)
    return found.reason if isinstance(found, TokenRefusal) else found


def test_a_known_key_is_used():
    """However old, as long as it may be: a read of the keys is nobody's business then."""
    assert look_up(READ, 100.0) is KEYS.keys[0]
    assert look_up(key_refresh.failed(READ), 5099.0) is KEYS.keys[0]


def test_keys_that_could_not_be_read_again_are_used_for_a_while():
    """Then an issuer that was silent for so long is asked first."""
    assert look_up(READ, 5100.0) is Next.READ
    tried = msgspec.structs.replace(READ, tried_at=5100.0)
    assert look_up(key_refresh.failed(tried), 5101.0) == Reason.KEYS_UNAVAILABLE


def test_an_unknown_key_is_looked_for_every_ten_seconds():
    """Tokens choose which key they name, so they could make the gateway ask without end."""
    assert look_up(READ, 108.0, "new") == Reason.UNKNOWN_KEY
    assert look_up(READ, 109.0, "new") is Next.READ
    assert look_up(READ, 109.0, "new", may_read=False) == Reason.UNKNOWN_KEY


def test_an_issuer_that_is_away_says_nothing_about_a_token():
    """Nobody knows whether the key exists, so the token is not called invalid."""
    away = KnownKeys(tried_at=100.0, failures=1)
    assert look_up(away, 105.0) == Reason.KEYS_UNAVAILABLE
    assert look_up(key_refresh.failed(READ), 105.0, "new") == Reason.KEYS_UNAVAILABLE
    assert look_up(KnownKeys(), 0.0) is Next.READ


def test_keys_are_read_before_they_are_too_old():
    """After four fifths of their time."""
    assert key_refresh.due_at(KnownKeys(), WHERE) < 0
    assert key_refresh.due_at(READ, WHERE) == 900.0
    assert key_refresh.due_at(READ, KeyLocation(issuer=ISSUER, ttl_seconds=1)) == 109.0


def test_failures_are_tried_again_less_and_less_often():
    """From ten seconds to five minutes."""
    known, pauses = READ, []
    for _ in range(8):
        known = key_refresh.failed(known)
        pauses.append(key_refresh.due_at(known, WHERE) - known.tried_at)
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]
    again = key_refresh.succeeded(known, KEYS, 200.0)
    assert (again.failures, key_refresh.due_at(again, WHERE)) == (0, 1000.0)


@given(st.lists(st.tuples(st.floats(0, 60), st.booleans(), st.booleans()), max_size=40))
def test_reads_are_ten_seconds_apart(steps: list[tuple[float, bool, bool]]):
    """Whatever tokens name, and whatever the issuer answers."""
    known, now, reads = KnownKeys(), 0.0, []
    for pause, is_known, works in steps:
        now += pause
        found = key_refresh.look_up(known, WHERE, "k1" if is_known else "new", "ES256", now, may_read=True)
        if found is Next.READ or now >= key_refresh.due_at(known, WHERE):
            reads.append(now)
            known = msgspec.structs.replace(known, tried_at=now)
            known = key_refresh.succeeded(known, KEYS, now) if works else key_refresh.failed(known)
    assert all(later - earlier >= 10 for earlier, later in pairwise(reads))
