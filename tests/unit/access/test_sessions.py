"""Sessions of the console: who signed in, until the key or the token behind it ends."""

import jwt
import pytest

from gateway.access.authentication import Authenticator
from gateway.access.browser_tokens import TokenRequest, TokenService
from gateway.access.sessions import TTL_SECONDS, Sessions
from gateway.errors import Unauthenticated
from tests.support.audit import BY_TEST
from tests.support.callers import BLUE, RED, caller, issue
from tests.support.clock import ManualClock
from tests.support.fakes import FakeStore
from tests.support.live import access_of, teams_of

SECRET = b"s" * 32


@pytest.fixture
def authenticator(store: FakeStore, clock: ManualClock) -> Authenticator:
    return Authenticator(teams_of(RED, BLUE), access_of(), store, TokenService(SECRET, clock), clock)


@pytest.fixture
def sessions(authenticator: Authenticator, clock: ManualClock) -> Sessions:
    return Sessions(SECRET, access_of(ops_token="the token"), authenticator, clock)


async def test_session_belongs_to_a_key_or_to_the_operators(
    sessions: Sessions, authenticator: Authenticator, store: FakeStore
):
    minted, key = issue("blue")
    await store.add_key(key, actor=BY_TEST)
    who = await authenticator.authenticate(f"Bearer {minted.key}", None)
    cookie = sessions.open(who)
    assert await sessions.read(cookie) == who
    assert minted.key not in cookie
    assert await sessions.read(sessions.open(None)) is None


async def test_session_ends_with_its_key(
    sessions: Sessions, authenticator: Authenticator, store: FakeStore, clock: ManualClock
):
    """Someone who left the team sees nothing a second later."""
    minted, key = issue("blue")
    await store.add_key(key, actor=BY_TEST)
    cookie = sessions.open(await authenticator.authenticate(f"Bearer {minted.key}", None))
    await store.revoke_key(key.id, clock.now(), actor=BY_TEST)
    await clock.advance(1)
    with pytest.raises(Unauthenticated):
        await sessions.read(cookie)


async def test_session_expires_after_its_lifetime(sessions: Sessions, clock: ManualClock):
    cookie = sessions.open(None)
    await clock.advance(TTL_SECONDS - 1)
    assert await sessions.read(cookie) is None
    await clock.advance(1)
    with pytest.raises(Unauthenticated):
        await sessions.read(cookie)


async def test_new_ops_token_ends_all_sessions(sessions: Sessions, authenticator: Authenticator, clock: ManualClock):
    cookie = sessions.open(None)
    for token in ("another token", None):
        with pytest.raises(Unauthenticated):
            await Sessions(SECRET, access_of(ops_token=token), authenticator, clock).read(cookie)
    assert await Sessions(SECRET, access_of(ops_token="the token"), authenticator, clock).read(cookie) is None


async def test_unsigned_session_is_refused(sessions: Sessions, clock: ManualClock):
    """A forged cookie, one without a signature, a browser token, nonsense."""
    claims = {"sub": "operators", "aud": "replicate-gateway-dashboard", "exp": int(clock.now()) + 60}
    token = TokenService(SECRET, clock).mint(caller(), TokenRequest(ttl_seconds=60, origins=None)).token
    forged = jwt.encode(claims, b"x" * 32, algorithm="HS256")
    unsigned = jwt.encode(claims, None, algorithm="none")
    for cookie in (forged, unsigned, token, token.removeprefix("rgt_"), "nonsense", ""):
        with pytest.raises(Unauthenticated):
            await sessions.read(cookie)
