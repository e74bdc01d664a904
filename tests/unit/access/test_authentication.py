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
from tests.support.clock import ManualClock
from tests.support.fakes import AWAY, FakeStore
from tests.support.live import access_of, teams_of
from tests.support.people import BLUE, PAGE, RED, issue

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


async def test_a_key_of_the_config_needs_no_store(store, tokens, clock):
    """A gateway whose store is away still knows the keys of its config."""
    minted, key = issue()
    store.trouble = AWAY
    found = await ask(authenticator(store, tokens, clock, key), minted)
    assert (found.team, found.key_id, found.scopes, found.origins) == (RED, key.id, RED.scopes, None)
    assert store.calls == []


async def test_a_key_of_the_store_is_its_teams(store, tokens, clock):
    """Keys issued at run time work at once."""
    minted, key = issue("blue", scopes=("read", "train"), models=("acme/x",))
    await store.add_key(key)
    found = await ask(authenticator(store, tokens, clock), minted)
    assert (found.team, found.scopes) == (BLUE, {Scope.READ})
    assert found.models == (("acme/*",), ("acme/x",))


async def test_both_schemes_are_understood(store, tokens, clock):
    """LiteLLM says Token, everybody else Bearer, some in small letters."""
    minted, key = issue()
    who = authenticator(store, tokens, clock, key)
    for scheme in ("Bearer", "bearer", "Token", "TOKEN"):
        assert (await who.authenticate(f"{scheme} {minted.key}", None)).team is RED


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic abc", "rgw_a", "Bearer x", "Bearer rgt_x.y.z"]
)
async def test_without_a_valid_key_nobody_comes_in(header, store, tokens, clock):
    """The words are upstream's."""
    with pytest.raises(Unauthenticated):
        await authenticator(store, tokens, clock).authenticate(header, None)


async def test_a_right_id_with_a_wrong_secret_is_nobody(store, tokens, clock):
    """The id of a key may be shown; it opens nothing."""
    minted, key = issue()
    await store.add_key(key)
    other, _ = issue()
    wrong = minted.key[:17] + other.key[17:]
    who = authenticator(store, tokens, clock)
    with pytest.raises(Unauthenticated):
        await ask(who, wrong)
    assert (await ask(who, minted)).key_id == key.id


async def test_a_revoked_key_ends_within_a_second(store, tokens, clock):
    """Whoever revokes a key can count to one."""
    minted, key = issue()
    await store.add_key(key)
    who = authenticator(store, tokens, clock)
    assert await ask(who, minted)
    await store.revoke_key(key.id, clock.now())
    await clock.advance(1)
    with pytest.raises(Unauthenticated):
        await ask(who, minted)


async def test_a_key_expires_on_time(store, tokens, clock):
    """Not half a second later: the end of a key needs no news."""
    minted, key = issue(expires_at=clock.now() + 10)
    await store.add_key(key)
    who = authenticator(store, tokens, clock)
    await clock.advance(9.9)
    assert await ask(who, minted)
    await clock.advance(0.1)
    with pytest.raises(Unauthenticated):
        await ask(who, minted)


async def test_a_new_key_works_within_a_second_of_a_failed_try(store, tokens, clock):
    """Whoever tried too early is not shut out for long."""
    minted, key = issue()
    who = authenticator(store, tokens, clock)
    with pytest.raises(Unauthenticated):
        await ask(who, minted)
    await store.add_key(key)
    await clock.advance(1)
    assert await ask(who, minted)


async def test_a_busy_key_costs_two_reads_a_second(store, tokens, clock):
    """A thousand requests do not ask the store a thousand times."""
    minted, key = issue()
    await store.add_key(key)
    store.calls.clear()
    who = authenticator(store, tokens, clock)
    for _ in range(100):
        await ask(who, minted)
        await clock.advance(0.01)
    assert len(store.calls) <= 3


async def test_with_the_store_away_an_unknown_key_is_not_called_wrong(store, tokens, clock):
    """503, not 401: the key may be good."""
    minted, _ = issue()
    store.trouble = AWAY
    with pytest.raises(StoreUnavailable):
        await ask(authenticator(store, tokens, clock), minted)


async def test_a_key_of_a_team_that_is_gone_opens_nothing(store, tokens, clock):
    """A team that was taken out of the config is out."""
    minted, key = issue("green")
    await store.add_key(key)
    with pytest.raises(Unauthenticated):
        await ask(authenticator(store, tokens, clock), minted)


@pytest.mark.parametrize(
    ("origin", "passes"), [(PAGE, True), ("HTTPS://SHOP.example", True), (None, False), ("https://x", False)]
)
async def test_a_publishable_key_works_from_its_pages_only(origin, passes, store, tokens, clock):
    """A key that stands in a page is of no use elsewhere."""
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
        request = TokenRequest(ttl_seconds=60, **wanted)
        return tokens.mint(await ask(who, minted), request).token

    async def test_it_is_its_keys_team_with_less(self, store, tokens, clock):
        """What the page may is what it was given; minting is not among it."""
        minted, key = issue(scopes=("read", "predict", "tokens"))
        await store.add_key(key)
        who = authenticator(store, tokens, clock)
        token = await self.mint(who, tokens, minted, scopes=("predict",), models=("acme/*",), user="ann")
        found = await ask(who, token)
        assert (found.team, found.key_id, found.user) == (RED, key.id, "ann")
        assert found.scopes == {Scope.PREDICT}
        assert found.models == (("*",), ("acme/*",))

    async def test_it_works_from_its_pages_only(self, store, tokens, clock):
        """A token that leaked from a page is of no use elsewhere."""
        minted, key = issue()
        who = authenticator(store, tokens, clock, key)
        token = await self.mint(who, tokens, minted, origins=(PAGE,))
        assert (await ask(who, token, PAGE)).origins == (PAGE,)
        with pytest.raises(Forbidden):
            await ask(who, token, "https://evil.example")

    async def test_its_pages_may_be_spelled_as_people_spell_them(self, store, tokens, clock):
        """A browser says `https://shop.example`, however the server that minted the token wrote it."""
        minted, key = issue()
        who = authenticator(store, tokens, clock, key)
        token = await self.mint(who, tokens, minted, origins=("https://Shop.Example:443",))
        assert await ask(who, token, PAGE)

    async def test_it_ends_on_time(self, store, tokens, clock):
        """A minute is a minute."""
        minted, key = issue()
        who = authenticator(store, tokens, clock, key)
        token = await self.mint(who, tokens, minted)
        await clock.advance(59.9)
        assert await ask(who, token)
        await clock.advance(0.1)
        with pytest.raises(Unauthenticated, match="expired"):
            await ask(who, token)

    async def test_it_dies_with_its_key(self, store, tokens, clock):
        """Revoking the key that minted it ends it within a second."""
        minted, key = issue()
        await store.add_key(key)
        who = authenticator(store, tokens, clock)
        token = await self.mint(who, tokens, minted)
        assert await ask(who, token)
        await store.revoke_key(key.id, clock.now())
        await clock.advance(1)
        with pytest.raises(Unauthenticated):
            await ask(who, token)

    async def test_it_dies_with_a_deleted_key(self, store, tokens, clock):
        """A key that was taken out of the config takes its tokens along."""
        minted, key = issue()
        token = await self.mint(authenticator(store, tokens, clock, key), tokens, minted)
        with pytest.raises(Unauthenticated):
            await ask(authenticator(store, tokens, clock), token)

    async def test_it_stays_with_its_team(self, store, tokens, clock):
        """A key that now belongs to another team does not take tokens of the first along."""
        minted, key = issue()
        token = await self.mint(authenticator(store, tokens, clock, key), tokens, minted)
        with pytest.raises(Unauthenticated):
            await ask(authenticator(store, tokens, clock, replace(key, team="blue")), token)

    async def test_it_carries_limits_of_its_own(self, store, tokens, clock):
        """A page is given ten requests a minute; a second token of the same key is counted apart."""
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

    async def test_its_key_being_narrowed_narrows_it(self, store, tokens, clock):
        """A scope that the key has lost is lost to the page too."""
        minted, key = issue()
        token = await self.mint(authenticator(store, tokens, clock, key), tokens, minted, scopes=("read", "predict"))
        less = authenticator(store, tokens, clock, replace(key, scopes=("read",), models=("acme/x",)))
        found = await ask(less, token)
        assert found.scopes == {Scope.READ}
        assert not found.may_run("other/x")

    async def test_another_gateways_token_opens_nothing(self, store, tokens, clock):
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


async def test_a_key_that_runs_out_of_memory_between_two_looks_is_read_again(store, tokens):
    """A busy gateway does not answer 500 now and then."""
    minted, key = issue()
    await store.add_key(key)
    who = authenticator(store, tokens, TickingClock())
    for _ in range(10):
        assert await ask(who, minted)
