"""Sessions of the console: who signed in, until the key or the token behind it ends."""

import jwt
import msgspec
import pytest

from gateway.access.authentication import AccessSettings, Authenticator
from gateway.access.browser_tokens import TokenRequest, TokenService
from gateway.access.rules.console_roles import Person
from gateway.access.rules.issuers import ConsoleClient, IssuerSettings
from gateway.access.sessions import TTL_SECONDS, Sessions, Viewer
from gateway.domain.scopes import Scope
from gateway.errors import Unauthenticated
from gateway.runtime.live import LiveSettings
from tests.support.audit import BY_TEST
from tests.support.callers import BLUE, RED, caller, issue
from tests.support.clock import ManualClock
from tests.support.fakes import FakeStore
from tests.support.issuers import ISSUER, issuer
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
    assert await sessions.read(cookie) == Viewer(caller=who)
    assert minted.key not in cookie
    assert await sessions.read(sessions.open(None)) == Viewer()


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
    assert await sessions.read(cookie) == Viewer()
    await clock.advance(1)
    with pytest.raises(Unauthenticated):
        await sessions.read(cookie)


async def test_new_ops_token_ends_all_sessions(sessions: Sessions, authenticator: Authenticator, clock: ManualClock):
    cookie = sessions.open(None)
    for token in ("another token", None):
        with pytest.raises(Unauthenticated):
            await Sessions(SECRET, access_of(ops_token=token), authenticator, clock).read(cookie)
    assert await Sessions(SECRET, access_of(ops_token="the token"), authenticator, clock).read(cookie) == Viewer()


@pytest.mark.parametrize("cookie", ["\udcff", "eyJ9.e30.\udcff"])
async def test_cookie_that_is_no_text_is_refused(sessions: Sessions, cookie: str):
    """Bytes that are not UTF-8 are one that is not valid, as everything else is."""
    with pytest.raises(Unauthenticated):
        await sessions.read(cookie)


async def test_unsigned_session_is_refused(sessions: Sessions, clock: ManualClock):
    """A forged cookie, one without a signature, a browser token, nonsense."""
    claims = {"sub": "operators", "aud": "replicate-gateway-dashboard", "exp": int(clock.now()) + 60}
    token = TokenService(SECRET, clock).mint(caller(), TokenRequest(ttl_seconds=60, origins=None)).token
    forged = jwt.encode(claims, b"x" * 32, algorithm="HS256")
    unsigned = jwt.encode(claims, None, algorithm="none")
    for cookie in (forged, unsigned, token, token.removeprefix("rgt_"), "nonsense", ""):
        with pytest.raises(Unauthenticated):
            await sessions.read(cookie)


LEADS = {"red-leads": "red", "blue-leads": "blue"}
CONSOLE = ConsoleClient(
    client_id="c", operator_claim="groups", operators=frozenset({"platform"}), lead_claim="groups", leads=LEADS
)


def person(team: str | None) -> Person:
    value = "platform" if team is None else f"{team}-leads"
    return Person(issuer="id", url=ISSUER, user="id:ann", team=team, claim="groups", value=value)


async def test_session_of_a_person_has_the_rights_of_its_role(
    authenticator: Authenticator, clock: ManualClock, store: FakeStore
):
    """A lead sees its team only, and never has the account; an operator is one."""
    issuers = LiveSettings(IssuerSettings(issuers=(issuer(console=CONSOLE),)))
    sessions = Sessions(SECRET, access_of(ops_token="the token"), authenticator, clock, issuers)
    operator = await sessions.read(sessions.open_for(person(None)))
    assert (operator.caller, operator.team, operator.actor) == (None, None, "issuer:id:ann")
    lead = await sessions.read(sessions.open_for(person("red")))
    assert (lead.team, lead.actor, lead.leads_team) == ("red", "issuer:id:ann", True)
    assert lead.caller is not None
    assert lead.caller.scopes == RED.scopes | {Scope.KEYS}
    teams = teams_of(msgspec.structs.replace(RED, scopes=frozenset(Scope)))
    rich = Authenticator(teams, access_of(), store, TokenService(SECRET, clock), clock).lead(issuer(), "red")
    assert rich.scopes == frozenset(Scope) - {Scope.ACCOUNT, Scope.ADMIN}
    assert not rich.owns("blue")


@pytest.mark.parametrize("team", [None, "red"])
async def test_session_of_a_person_ends_with_the_config(
    authenticator: Authenticator, clock: ManualClock, team: str | None
):
    """When the issuer, its console or what gave the role leaves it, and with the token of operators."""
    issuers = LiveSettings(IssuerSettings(issuers=(issuer(console=CONSOLE),)))
    access = access_of(ops_token="the token")
    sessions = Sessions(SECRET, access, authenticator, clock, issuers)
    cookie = sessions.open_for(person(team))
    assert (await sessions.read(cookie)).team == team
    without = {"operators": frozenset({"sre"})} if team is None else {"leads": {"red-leads": "blue"}}
    for changed in ((), (issuer(),), (issuer(console=msgspec.structs.replace(CONSOLE, **without)),)):
        issuers.replace(IssuerSettings(issuers=changed))
        with pytest.raises(Unauthenticated):
            await sessions.read(cookie)
    issuers.replace(IssuerSettings(issuers=(issuer(console=CONSOLE),)))
    assert (await sessions.read(cookie)).team == team
    access.replace(AccessSettings(ops_token="another token"))
    with pytest.raises(Unauthenticated):
        await sessions.read(cookie)
    access.replace(AccessSettings(ops_token="the token"))
    await clock.advance(TTL_SECONDS)
    with pytest.raises(Unauthenticated):
        await sessions.read(cookie)


async def test_person_of_another_version_signs_in_again(sessions: Sessions):
    """A cookie without what this version needs is no crash."""
    for given in (None, {}, {"issuer": "id"}, person(None)):
        with pytest.raises(Unauthenticated):
            await sessions.read(sessions._sealed({"sub": "person", "person": msgspec.to_builtins(given)}))


async def test_lead_of_a_team_that_has_gone_is_nobody(clock: ManualClock, store: FakeStore):
    issuers = LiveSettings(IssuerSettings(issuers=(issuer(console=CONSOLE),)))
    authenticator = Authenticator(teams_of(BLUE), access_of(), store, TokenService(SECRET, clock), clock)
    sessions = Sessions(SECRET, access_of(ops_token="the token"), authenticator, clock, issuers)
    with pytest.raises(Unauthenticated):
        await sessions.read(sessions.open_for(person("red")))
