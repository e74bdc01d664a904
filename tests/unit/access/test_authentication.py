"""Who is asking."""

import pytest
from msgspec.structs import replace

from gateway.access.authentication import Authenticator
from gateway.access.browser_tokens import TokenLimits, TokenRequest, TokenService
from gateway.access.rules.api_keys import Minted
from gateway.domain.limits import Allowance, Limits, Subject, SubjectKind
from gateway.domain.records import Key
from gateway.domain.scopes import Scope
from gateway.domain.teams import Caller, Team
from gateway.errors import Forbidden, StoreUnavailable, Unauthenticated
from tests.support.audit import BY_TEST
from tests.support.callers import BLUE, PAGE, RED, issue
from tests.support.clock import ManualClock
from tests.support.fakes import AWAY, FakeStore
from tests.support.live import access_of, teams_of

SECRET = b"s" * 32


@pytest.fixture
def tokens(clock: ManualClock) -> TokenService:
    return TokenService(SECRET, clock)


def authenticator(
    store: FakeStore, tokens: TokenService, clock: ManualClock, *config_keys: Key, teams: tuple[Team, ...] = (RED, BLUE)
) -> Authenticator:
    return Authenticator(teams_of(*teams), access_of(*config_keys), store, tokens, clock)


async def ask(who: Authenticator, key: Minted | str, origin: str | None = None) -> Caller:
    return await who.authenticate(f"Bearer {key if isinstance(key, str) else key.key}", origin)


async def test_config_key_needs_no_store(store, tokens, clock):
    """A gateway whose store is down still knows the keys of its config."""
    minted, key = issue()
    store.trouble = AWAY
    found = await ask(authenticator(store, tokens, clock, key), minted)
    assert (found.team, found.key_id, found.scopes, found.origins) == (RED, key.id, RED.scopes, None)
    assert store.calls == []


async def test_issued_key_works_at_once(store, tokens, clock):
    """Keys issued at run time belong to their team."""
    minted, key = issue("blue", scopes=("read", "train"), models=("acme/x",))
    await store.add_key(key, actor=BY_TEST)
    found = await ask(authenticator(store, tokens, clock), minted)
    assert (found.team, found.scopes) == (BLUE, {Scope.READ})
    assert found.models == (("acme/*",), ("acme/x",))


async def test_bearer_and_token_schemes_are_accepted(store, tokens, clock):
    """LiteLLM sends Token, other clients Bearer, some in lower case."""
    minted, key = issue()
    who = authenticator(store, tokens, clock, key)
    for scheme in ("Bearer", "bearer", "Token", "TOKEN"):
        assert (await who.authenticate(f"{scheme} {minted.key}", None)).team is RED


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic abc", "rgw_a", "Bearer x", "Bearer rgt_x.y.z"]
)
async def test_missing_or_invalid_key_is_refused(header, store, tokens, clock):
    """The error has upstream's words."""
    with pytest.raises(Unauthenticated):
        await authenticator(store, tokens, clock).authenticate(header, None)


async def test_known_id_with_a_wrong_secret_is_refused(store, tokens, clock):
    """The id of a key may be shown; it grants nothing."""
    minted, key = issue()
    await store.add_key(key, actor=BY_TEST)
    other, _ = issue()
    wrong = minted.key[:17] + other.key[17:]
    who = authenticator(store, tokens, clock)
    with pytest.raises(Unauthenticated):
        await ask(who, wrong)
    assert (await ask(who, minted)).key_id == key.id


async def test_revoked_key_ends_within_a_second(store, tokens, clock):
    """Whoever revokes a key can count to one."""
    minted, key = issue()
    await store.add_key(key, actor=BY_TEST)
    who = authenticator(store, tokens, clock)
    assert await ask(who, minted)
    await store.revoke_key(key.id, clock.now(), actor=BY_TEST)
    await clock.advance(1)
    with pytest.raises(Unauthenticated, match="This key was revoked"):
        await ask(who, minted)


async def test_replicate_token_is_recognised(store, tokens, clock):
    """The commonest mistake: the token that the client was configured with before."""
    for scheme in ("Bearer", "Token"):
        with pytest.raises(Unauthenticated, match="this is a token of Replicate"):
            await authenticator(store, tokens, clock).authenticate(f"{scheme} r8_{'a' * 37}", None)


async def test_json_web_token_without_issuers_is_recognised(store, tokens, clock):
    """The page is right and the config is not: it has no [[issuers]]."""
    with pytest.raises(Unauthenticated, match="is a JSON Web Token, and the gateway's config has no"):
        await authenticator(store, tokens, clock).authenticate("Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.c2ln", None)


@pytest.mark.parametrize("ended", ["revoked", "expired", "valid"])
async def test_state_of_a_key_is_told_to_its_holder_only(store, tokens, clock, ended):
    """Who knows the id alone learns nothing: the error is that of a key that does not exist."""
    minted, key = issue(expires_at=clock.now() + 10 if ended == "expired" else None)
    await store.add_key(key, actor=BY_TEST)
    if ended == "revoked":
        await store.revoke_key(key.id, clock.now(), actor=BY_TEST)
    await clock.advance(20)
    other, _ = issue()
    details = []
    for presented in (minted.key[:17] + other.key[17:], other.key):
        with pytest.raises(Unauthenticated) as refused:
            await authenticator(store, tokens, clock).authenticate(f"Bearer {presented}", None)
        details.append(refused.value.detail)
    assert details == ["You did not pass a valid authentication token"] * 2


async def test_key_expires_on_time(store, tokens, clock):
    """Not half a second later: an expiry needs no read of the store."""
    minted, key = issue(expires_at=clock.now() + 10)
    await store.add_key(key, actor=BY_TEST)
    who = authenticator(store, tokens, clock)
    await clock.advance(9.9)
    assert await ask(who, minted)
    await clock.advance(0.1)
    with pytest.raises(Unauthenticated, match="This key has expired"):
        await ask(who, minted)


async def test_new_key_works_within_a_second_of_a_failed_attempt(store, tokens, clock):
    """A caller who tried too early is not locked out for long."""
    minted, key = issue()
    who = authenticator(store, tokens, clock)
    with pytest.raises(Unauthenticated):
        await ask(who, minted)
    await store.add_key(key, actor=BY_TEST)
    await clock.advance(1)
    assert await ask(who, minted)


async def test_busy_key_costs_two_reads_a_second(store, tokens, clock):
    """A thousand requests do not ask the store a thousand times."""
    minted, key = issue()
    await store.add_key(key, actor=BY_TEST)
    store.calls.clear()
    who = authenticator(store, tokens, clock)
    for _ in range(100):
        await ask(who, minted)
        await clock.advance(0.01)
    assert len(store.calls) <= 3


async def test_unknown_key_is_unavailable_when_the_store_is_down(store, tokens, clock):
    """503, not 401: the key may be valid."""
    minted, _ = issue()
    store.trouble = AWAY
    with pytest.raises(StoreUnavailable):
        await ask(authenticator(store, tokens, clock), minted)


async def test_key_of_a_removed_team_is_refused(store, tokens, clock):
    """A team that was taken out of the config is out."""
    minted, key = issue("green")
    await store.add_key(key, actor=BY_TEST)
    with pytest.raises(Unauthenticated):
        await ask(authenticator(store, tokens, clock), minted)


@pytest.mark.parametrize(
    ("origin", "passes"), [(PAGE, True), ("HTTPS://SHOP.example", True), (None, False), ("https://x", False)]
)
async def test_publishable_key_works_from_its_origins_only(origin, passes, store, tokens, clock):
    """A key copied from a page does not work elsewhere."""
    minted, key = issue(origins=(PAGE,))
    who = authenticator(store, tokens, clock, key)
    if passes:
        assert (await ask(who, minted, origin)).origins == (PAGE,)
    else:
        with pytest.raises(Forbidden):
            await ask(who, minted, origin)


class TestBrowserTokens:
    """A page's short-lived key."""

    async def mint(self, who: Authenticator, tokens: TokenService, minted: Minted, **wanted: object) -> str:
        request = TokenRequest(**({"ttl_seconds": 60, "origins": None} | wanted))
        return tokens.mint(await ask(who, minted), request).token

    async def test_browser_token_is_a_narrower_key(self, store, tokens, clock):
        """The page may do what it was granted; minting tokens is not part of it."""
        minted, key = issue(scopes=("read", "predict", "tokens"))
        await store.add_key(key, actor=BY_TEST)
        who = authenticator(store, tokens, clock)
        token = await self.mint(who, tokens, minted, scopes=("predict",), models=("acme/*",), user="ann")
        found = await ask(who, token)
        assert (found.team, found.key_id, found.user) == (RED, key.id, "ann")
        assert found.scopes == {Scope.PREDICT}
        assert found.models == (("*",), ("acme/*",))

    async def test_browser_token_works_from_its_origins_only(self, store, tokens, clock):
        """A token that leaked from a page does not work elsewhere."""
        minted, key = issue()
        who = authenticator(store, tokens, clock, key)
        token = await self.mint(who, tokens, minted, origins=(PAGE,))
        assert (await ask(who, token, PAGE)).origins == (PAGE,)
        with pytest.raises(Forbidden):
            await ask(who, token, "https://evil.example")

    async def test_browser_token_origins_may_be_spelled_freely(self, store, tokens, clock):
        """A browser sends `https://shop.example`, however the server that minted the token wrote it."""
        minted, key = issue()
        who = authenticator(store, tokens, clock, key)
        token = await self.mint(who, tokens, minted, origins=("https://Shop.Example:443",))
        assert await ask(who, token, PAGE)

    async def test_browser_token_expires_on_time(self, store, tokens, clock):
        """A minute is a minute."""
        minted, key = issue()
        who = authenticator(store, tokens, clock, key)
        token = await self.mint(who, tokens, minted)
        await clock.advance(59.9)
        assert await ask(who, token)
        await clock.advance(0.1)
        with pytest.raises(Unauthenticated, match="expired"):
            await ask(who, token)

    async def test_browser_token_is_revoked_with_its_key(self, store, tokens, clock):
        """Revoking the key that minted it ends it within a second."""
        minted, key = issue()
        await store.add_key(key, actor=BY_TEST)
        who = authenticator(store, tokens, clock)
        token = await self.mint(who, tokens, minted)
        assert await ask(who, token)
        await store.revoke_key(key.id, clock.now(), actor=BY_TEST)
        await clock.advance(1)
        with pytest.raises(Unauthenticated, match="The key that this was made with was revoked"):
            await ask(who, token)

    async def test_browser_token_ends_with_a_removed_config_key(self, store, tokens, clock):
        """A key that was taken out of the config takes its tokens along."""
        minted, key = issue()
        token = await self.mint(authenticator(store, tokens, clock, key), tokens, minted)
        with pytest.raises(Unauthenticated):
            await ask(authenticator(store, tokens, clock), token)

    async def test_browser_token_does_not_follow_its_key_to_another_team(self, store, tokens, clock):
        """A key that now belongs to another team does not take tokens of the first along."""
        minted, key = issue()
        token = await self.mint(authenticator(store, tokens, clock, key), tokens, minted)
        with pytest.raises(Unauthenticated):
            await ask(authenticator(store, tokens, clock, replace(key, team="blue")), token)

    async def test_browser_token_has_its_own_limits(self, store, tokens, clock):
        """A page gets ten requests a minute; a second token of the same key is counted separately."""
        minted, key = issue()
        own = Allowance(own=Limits(requests_per_minute=100))
        who = Authenticator(teams_of(RED), access_of(key, allowances={key.id: own}), store, tokens, clock)
        limits = TokenLimits(requests_per_minute=10, burst=2)
        pages = [await ask(who, await self.mint(who, tokens, minted, limits=limits)) for _ in range(2)]
        assert all(page.is_public for page in pages)
        of_key, of_token = pages[0].subjects()
        assert of_key == Subject(SubjectKind.KEY, key.id, own.own, "key")
        assert of_token.limits == Limits(requests_per_minute=10, burst=2)
        assert of_token.id != pages[1].subjects()[1].id

    async def test_browser_token_narrows_with_its_key(self, store, tokens, clock):
        """A scope that the key has lost is lost to the page too."""
        minted, key = issue()
        token = await self.mint(authenticator(store, tokens, clock, key), tokens, minted, scopes=("read", "predict"))
        less = authenticator(store, tokens, clock, replace(key, scopes=("read",), models=("acme/x",)))
        found = await ask(less, token)
        assert found.scopes == {Scope.READ}
        assert not found.may_run("other/x")

    async def test_browser_token_of_another_gateway_is_refused(self, store, tokens, clock):
        """Without the secret there is no token."""
        minted, key = issue()
        who = authenticator(store, tokens, clock, key)
        other = TokenService(b"t" * 32, clock)
        token = await self.mint(who, other, minted)
        with pytest.raises(Unauthenticated):
            await ask(who, token)


class TickingClock(ManualClock):
    """A clock that goes on between two looks, as clocks do."""

    def monotonic(self) -> float:
        self._passed += 0.3
        return super().monotonic()


async def test_key_evicted_from_memory_is_read_again(store, tokens):
    """A busy gateway does not answer 500 now and then."""
    minted, key = issue()
    await store.add_key(key, actor=BY_TEST)
    who = authenticator(store, tokens, TickingClock())
    for _ in range(10):
        assert await ask(who, minted)


async def test_key_that_has_changed_is_read_again_at_once(store, tokens, clock):
    """Another node has revoked it."""
    minted, key = issue()
    other, other_key = issue(name="other")
    await store.add_key(key, actor=BY_TEST)
    await store.add_key(other_key, actor=BY_TEST)
    who = authenticator(store, tokens, clock)
    await ask(who, minted)
    await ask(who, other)
    await store.revoke_key(key.id, clock.now(), actor=BY_TEST)
    who.forget([key.id, "unknown"])
    with pytest.raises(Unauthenticated):
        await ask(who, minted)
    reads = store.calls.count("key")
    await ask(who, other)
    assert store.calls.count("key") == reads
    who.forget(None)
    await ask(who, other)
    assert store.calls.count("key") == reads + 1
