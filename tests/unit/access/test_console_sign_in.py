"""Signing in to the console at an issuer: every way to be somebody else, and what is remembered."""

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from msgspec.structs import replace

from gateway.access.console_sign_in import ConsoleSignIn, StartedSignIn
from gateway.access.external_identities import ExternalIdentities
from gateway.access.issuer_keys import IssuerKeys
from gateway.access.ports import KeysUnread
from gateway.access.rules import sign_in
from gateway.access.rules.issuers import ConsoleClient, IssuerSettings
from gateway.errors import Forbidden, GatewayError, IssuerUnavailable, NotFound
from gateway.runtime.live import LiveSettings
from tests.support.clock import ManualClock
from tests.support.issuers import AUDIENCE, ISSUER, FakeKeySource, claims_for, issuer, jwks, new_key, part, sign_raw
from tests.support.live import access_of
from tests.support.observer import RecordingObserver

KEY, STRANGER = new_key(), new_key()
BACK = "https://ops.example.com/dashboard/sign-in/callback"
CONSOLE = ConsoleClient(
    client_id="console",
    operator_claim="groups",
    operators=frozenset({"platform"}),
    lead_claim="groups",
    leads={"red-leads": "red"},
)
ID = issuer(console=CONSOLE)
OTHER = replace(issuer(url="https://other.example.com", console=CONSOLE), name="other")


class FakeIssuer(FakeKeySource):
    """An issuer that answers with the ID token that a test sets."""

    def __init__(self) -> None:
        super().__init__(jwks(KEY))
        self.document: dict[str, Any] = {}
        self.answer: tuple[int, bytes] = (200, b"{}")
        self.redeemed: list[dict[str, str]] = []
        self.documents = 0

    async def configuration(self, where: Any) -> bytes:
        self.documents += 1
        if self.trouble is not None:
            raise self.trouble
        base = {name: f"{where.issuer}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
        return json.dumps({"issuer": where.issuer} | base | self.document).encode()

    async def redeem(self, where: Any, url: str, request: Any) -> tuple[int, bytes]:
        assert url.startswith(where.issuer)
        if self.trouble is not None:
            raise self.trouble
        self.redeemed.append(dict(parse_qsl(request.body.decode())))
        return self.answer

    def gives(self, token: str) -> None:
        self.answer = (200, json.dumps({"id_token": token, "access_token": "x"}).encode())


@pytest.fixture
def source() -> FakeIssuer:
    return FakeIssuer()


@pytest.fixture
def settings() -> LiveSettings[IssuerSettings]:
    return LiveSettings(IssuerSettings(issuers=(ID, OTHER, issuer(url="https://none.example.com"))))


@pytest.fixture
def observed() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
async def service(settings, source: FakeIssuer, clock: ManualClock, observed: RecordingObserver):
    keys = IssuerKeys(settings, source, clock, observed)
    identities = ExternalIdentities(settings, keys, clock, observed)
    access = access_of(ops_token="the token")
    yield ConsoleSignIn(b"s" * 32, settings, access, source, identities, clock, observed)
    await keys.close()


async def begin(
    service: ConsoleSignIn, name: str = "id", asked: str = "/dashboard/usage"
) -> tuple[str, dict[str, str]]:
    started = await service.start(name, BACK, asked)
    return started.cookie, dict(parse_qsl(urlsplit(started.url).query))


def id_token(clock: ManualClock, asked: dict[str, str], **more: Any) -> str:
    given = {"aud": "console", "nonce": asked["nonce"], "groups": ["platform"]} | more
    return KEY.sign(claims_for(clock.now(), **given))


def answered(asked: dict[str, str], **more: str) -> dict[str, str]:
    return {"state": asked["state"], "code": "the-code"} | more


async def refused(service: ConsoleSignIn, cookie: str, query: dict[str, str], name: str = "id") -> GatewayError:
    with pytest.raises((Forbidden, IssuerUnavailable)) as caught:
        await service.finish(name, cookie, query, BACK)
    return caught.value


async def test_operator_and_lead_sign_in(service, source: FakeIssuer, clock: ManualClock, observed: RecordingObserver):
    """With the page that was asked for. The verifier fits the challenge."""
    for groups, team in ((["platform", "red-leads"], None), ("red-leads", "red")):
        cookie, asked = await begin(service)
        source.gives(id_token(clock, asked, groups=groups))
        person, page = await service.finish("id", cookie, answered(asked), BACK)
        assert (person.issuer, person.user, person.team, page) == ("id", "id:ann", team, "/dashboard/usage")
        sent = source.redeemed[-1]
        assert sign_in.challenge_of(sent["code_verifier"]) == asked["code_challenge"]
        assert (sent["code"], sent["redirect_uri"]) == ("the-code", BACK)
    assert [values for name, values in observed.noted if name == "signed_in"] == [("id", "operator"), ("id", "lead")]
    assert source.documents == 1


WRONG: dict[str, Any] = {
    "nonce": {"nonce": "another"},
    "no nonce": {"nonce": None},
    "audience": {"aud": "other"},
    "of the API": {"aud": AUDIENCE},
    "of two clients": {"aud": ["console", "other"]},
    "issued to another client": {"azp": "other"},
    "expired": {"exp": 1},
    "not yet valid": {"nbf": 4e9},
    "no expiry": {"exp": None},
    "issuer": {"iss": OTHER.keys.issuer},
    "no issuer": {"iss": None},
    "no user": {"sub": None},
    "a logout token": {"events": {"x": {}}},
}


@pytest.mark.parametrize("name", WRONG)
async def test_id_token_of_another_kind_is_refused(service, source: FakeIssuer, clock: ManualClock, name: str):
    cookie, asked = await begin(service)
    source.gives(id_token(clock, asked, **WRONG[name]))
    assert isinstance(await refused(service, cookie, answered(asked)), Forbidden)


async def test_forged_id_token_is_refused(service, source: FakeIssuer, clock: ManualClock, observed: RecordingObserver):
    """By a stranger's key, unsigned, by the public key as a secret, altered, or with a key of its own."""
    cookie, asked = await begin(service)
    claims = claims_for(clock.now(), aud="console", nonce=asked["nonce"], groups="platform")
    tokens = [
        STRANGER.sign(claims),
        STRANGER.sign(claims, jwk=STRANGER.jwk),
        f"{part({'alg': 'none'})}.{part(claims)}.AA",
        sign_raw(KEY, {"alg": "HS256", "kid": "k1"}, claims, "HS256", KEY.pem),
        KEY.sign(claims | {"sub": "bob"}).rpartition(".")[0] + "." + KEY.sign(claims).rpartition(".")[2],
        KEY.sign(claims)[:-4] + "AAAA",
        "x" * 20_000,
        "nonsense",
    ]
    for token in tokens:
        cookie, again = await begin(service)
        source.gives(token)
        assert isinstance(await refused(service, cookie, answered(again)), Forbidden)
    assert {values[1] for name, values in observed.noted if name == "signed_in"} == {"invalid"}


async def test_answer_needs_the_browser_that_started(service, source: FakeIssuer, clock: ManualClock):
    """Another one, another attempt, another gateway, or ten minutes later: no code is redeemed."""
    cookie, asked = await begin(service)
    other_cookie, other = await begin(service)
    source.gives(id_token(clock, asked))
    for wrong_cookie, query in (
        ("", answered(asked)),
        (other_cookie, answered(asked)),
        (cookie[:-2], answered(asked)),
        (cookie, answered(other)),
        (cookie, {"code": "the-code"}),
    ):
        assert isinstance(await refused(service, wrong_cookie, query), Forbidden)
    cookie, asked = await begin(service)
    await clock.advance(600)
    assert "ten minutes" in (await refused(service, cookie, answered(asked))).detail
    assert source.redeemed == []


async def test_answer_counts_once(service, source: FakeIssuer, clock: ManualClock):
    """The cookie of a browser can be copied; its second use is refused before the issuer is asked."""
    cookie, asked = await begin(service)
    source.gives(id_token(clock, asked))
    await service.finish("id", cookie, answered(asked), BACK)
    assert "has ended" in (await refused(service, cookie, answered(asked))).detail
    assert len(source.redeemed) == 1


async def test_issuers_cannot_be_mixed_up(service, source: FakeIssuer, clock: ManualClock):
    """A code of one is not sent to another one: it comes back at another address, and may name itself (RFC 9207).

    Nor does its ID token count there.
    """
    cookie, asked = await begin(service, "other")
    source.gives(id_token(clock, asked))
    assert isinstance(await refused(service, cookie, answered(asked, iss=ISSUER), "other"), Forbidden)
    cookie, asked = await begin(service, "other")
    source.gives(id_token(clock, asked))
    assert "was not started" in (await refused(service, cookie, answered(asked), "id")).detail
    assert source.redeemed == []
    assert "another issuer" in (await refused(service, cookie, answered(asked), "other")).detail


async def test_refusal_of_the_issuer_is_told_without_its_words(service, source: FakeIssuer):
    cookie, asked = await begin(service)
    said = answered(asked, error="<script>", error_description="call 0900")
    assert (await refused(service, cookie, said)).detail == "The issuer refused the sign-in."
    cookie, asked = await begin(service)
    source.answer = (400, b'{"error": "invalid_client", "error_description": "call 0900"}')
    assert (
        await refused(service, cookie, answered(asked))
    ).detail == "The issuer refused the sign-in (invalid_client)."


async def test_who_has_no_role_learns_which_claim_it_was(
    service, source: FakeIssuer, clock: ManualClock, observed: RecordingObserver
):
    cookie, asked = await begin(service)
    source.gives(id_token(clock, asked, groups=None))
    assert "lacks the claim 'groups'" in (await refused(service, cookie, answered(asked))).detail
    assert observed.last("signed_in") == ("id", "no_role")


async def test_only_issuers_with_a_console_take_part(service):
    assert service.issuers == ["id", "other"]
    for name in ("", "id.example.com", "ID"):
        with pytest.raises(NotFound):
            await service.start(name, BACK, "")


async def test_issuer_that_is_away_is_asked_again_later(
    service, source: FakeIssuer, clock: ManualClock, observed: RecordingObserver
):
    """Not at each click. What was known before is used meanwhile."""
    source.trouble = KeysUnread("timeout", "no answer in time")
    for _ in range(2):
        with pytest.raises(IssuerUnavailable) as caught:
            await service.start("id", BACK, "")
        assert caught.value.detail == "id cannot be asked who you are: no answer in time."
    assert source.documents == 1
    await clock.advance(10)
    source.trouble = None
    cookie, asked = await begin(service)
    source.trouble = KeysUnread("timeout", "no answer in time")
    assert isinstance(await refused(service, cookie, answered(asked)), IssuerUnavailable)
    assert observed.last("signed_in") == ("id", "unavailable")
    await clock.advance(ID.keys.ttl_seconds)
    assert isinstance(await service.start("id", BACK, ""), StartedSignIn)
    assert source.documents == 3
    await clock.advance(ID.keys.stale_seconds)
    with pytest.raises(IssuerUnavailable):
        await service.start("id", BACK, "")


async def test_document_of_another_issuer_starts_nothing(service, source: FakeIssuer):
    source.document = {"issuer": "https://evil.example"}
    with pytest.raises(IssuerUnavailable):
        await service.start("id", BACK, "")


async def test_reload_ends_what_has_begun(service, settings, source: FakeIssuer, clock: ManualClock):
    """If nobody signs in at the issuer any more."""
    cookie, asked = await begin(service)
    source.gives(id_token(clock, asked))
    settings.replace(IssuerSettings(issuers=(issuer(), OTHER)))
    assert isinstance(await refused(service, cookie, answered(asked)), Forbidden)
    assert service.issuers == ["other"]
    assert source.redeemed == []
