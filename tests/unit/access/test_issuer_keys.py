"""The keys of issuers in memory: read ahead, read once, and kept while their issuer is away."""

import asyncio
import logging
from contextlib import suppress

import pytest

from gateway.access.issuer_keys import IssuerKeys
from gateway.access.ports import KeysUnread
from gateway.access.rules.issuers import IssuerSettings
from gateway.access.rules.json_web_keys import PublicKey
from gateway.access.rules.json_web_tokens import Reason, TokenRefusal
from gateway.runtime.live import LiveSettings
from tests.support.clock import ManualClock, settle
from tests.support.issuers import FakeKeySource, issuer, jwks, new_key
from tests.support.observer import RecordingObserver

ONE, TWO = new_key("k1"), new_key("k2")
AWAY = KeysUnread("unreachable", "no connection")
ID = issuer()


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def source() -> FakeKeySource:
    return FakeKeySource(jwks(ONE))


@pytest.fixture
def settings() -> LiveSettings[IssuerSettings]:
    return LiveSettings(IssuerSettings(issuers=(ID,)))


@pytest.fixture
async def keys(settings, source, clock: ManualClock, observer: RecordingObserver):
    made = IssuerKeys(settings, source, clock, observer)
    yield made
    source.may_answer.set()
    await made.close()


async def find(keys: IssuerKeys, kid: str = "k1") -> PublicKey | Reason:
    found = await keys.find(ID, kid, "ES256")
    return found.reason if isinstance(found, TokenRefusal) else found


async def test_keys_are_read_once_for_all_who_wait(keys, source, observer):
    """A hundred pages that open at once are one request to the issuer."""
    source.may_answer.clear()
    asking = [asyncio.create_task(find(keys)) for _ in range(100)]
    await settle()
    source.may_answer.set()
    assert len(set(await asyncio.gather(*asking))) == 1
    assert source.reads == 1
    assert observer.of("issuer_keys_read") == [("id", "read")]


async def test_a_caller_that_leaves_does_not_end_the_read(keys, source):
    """The next one has the keys."""
    source.may_answer.clear()
    first = asyncio.create_task(find(keys))
    await settle()
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    source.may_answer.set()
    assert isinstance(await find(keys), PublicKey)
    assert source.reads == 1


async def test_a_rotated_key_is_found_and_the_old_one_is_gone(keys, source, clock):
    """A token with the new key makes the gateway read the keys, at most every ten seconds."""
    old = await find(keys)
    source.body = jwks(TWO)
    assert await find(keys, "k2") == Reason.UNKNOWN_KEY
    await clock.advance(10)
    assert isinstance(await find(keys, "k2"), PublicKey)
    assert await find(keys, "k1") == Reason.UNKNOWN_KEY
    assert not keys.is_current(ID, old)
    assert source.reads == 2


async def test_keys_that_have_not_changed_stay_the_same(keys, source, clock):
    """So that what they have verified does not have to be verified again."""
    before = await find(keys)
    await clock.advance(10)
    assert await find(keys, "k2") == Reason.UNKNOWN_KEY
    assert source.reads == 2
    assert await find(keys) is before
    assert keys.is_current(ID, before)


async def test_an_issuer_that_is_away_hurts_nobody_whose_key_is_known(keys, source, clock, caplog):
    """For a day. Tokens with other keys are not called invalid."""
    caplog.set_level(logging.CRITICAL)
    known = await find(keys)
    source.trouble = AWAY
    await clock.advance(10)
    assert await find(keys, "k2") == Reason.KEYS_UNAVAILABLE
    assert await find(keys) is known
    await clock.advance(86_400 - 11)
    assert await find(keys) is known
    await clock.advance(1)
    assert await find(keys) == Reason.KEYS_UNAVAILABLE
    assert not keys.is_current(ID, known)
    source.trouble = None
    await clock.advance(10)
    assert isinstance(await find(keys), PublicKey)


async def test_a_slow_issuer_delays_nobody_whose_key_is_known(keys, source, clock):
    """Only whose key is unknown waits."""
    known = await find(keys)
    await clock.advance(10)
    source.may_answer.clear()
    waiting = asyncio.create_task(find(keys, "k2"))
    await settle()
    assert await find(keys) is known
    assert not waiting.done()
    source.may_answer.set()
    assert await waiting == Reason.UNKNOWN_KEY


@pytest.mark.parametrize("body", [b"<html>", jwks({"kty": "oct", "k": "AA"}), b'{"keys": 7}'])
async def test_what_is_no_list_of_keys_changes_nothing(keys, source, clock, observer, body, caplog):
    """An issuer that answers with an error page is away."""
    known = await find(keys)
    source.body = body
    await clock.advance(10)
    assert await find(keys, "k2") == Reason.KEYS_UNAVAILABLE
    assert await find(keys) is known
    assert observer.of("issuer_keys_read") == [("id", "read"), ("id", "invalid")]


async def test_keys_are_read_before_they_are_needed_and_again_before_they_expire(keys, source, clock):
    """Without any token: at the start, then after four fifths of an hour each."""
    running = asyncio.create_task(keys.run())
    await settle()
    assert source.reads == 1
    await clock.advance(2870)
    assert source.reads == 1
    await clock.advance(20)
    assert source.reads == 2
    assert keys.ages == {"id": pytest.approx(10, abs=10)}
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_reload_adds_and_removes_issuers(keys, settings, source, clock):
    """A new one is read at once; of one that is gone, nothing stays."""
    running = asyncio.create_task(keys.run())
    await settle()
    known = await find(keys)
    other = issuer(name="other", url="https://other.example.com")
    settings.replace(IssuerSettings(issuers=(ID, other)))
    await clock.advance(1)
    assert source.reads == 2
    assert keys.ages.keys() == {"id", "other"}
    assert await find(keys) is known
    settings.replace(IssuerSettings(issuers=(other,)))
    await clock.advance(1)
    assert keys.ages.keys() == {"other"}
    assert not keys.is_current(ID, known)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_a_read_that_ends_after_its_issuer_was_removed_is_forgotten(keys, settings, source):
    """A reload can come at any time."""
    source.may_answer.clear()
    asking = asyncio.create_task(find(keys))
    await settle()
    settings.replace(IssuerSettings())
    source.may_answer.set()
    assert await asking == Reason.KEYS_UNAVAILABLE
    assert keys.ages == {}
