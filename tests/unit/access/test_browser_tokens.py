"""Browser tokens: what may be minted, and what is read back."""

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.access.browser_tokens import TOKEN_PREFIX, MintedToken, TokenRequest, TokenService
from gateway.domain.scopes import Scope, normal_origin
from gateway.domain.teams import Caller, Team, origin_allowed
from gateway.errors import Forbidden, Unauthenticated, Unprocessable
from tests.support.callers import PAGE, RED, caller
from tests.support.clock import ManualClock

SECRET = b"s" * 32
SCOPES = st.sets(st.sampled_from(list(Scope))).map(frozenset)
GLOBS = st.lists(st.sampled_from(["*", "a/*", "*/x", "a/x", "b/y", "a*/x?", "*/*"]), min_size=1, max_size=2).map(tuple)
ORIGINS = st.lists(st.sampled_from([PAGE, "https://a.example", "*", "HTTPS://A.example"]), max_size=2).map(tuple)
# The config and `gateway keys create` normalise origins.
CONFIGURED = ORIGINS.map(lambda origins: tuple(map(normal_origin, origins)))
MODELS = ["a/x", "a/xy", "b/y", "b/x", "ab/xz", "c/z"]
PAGES = [PAGE, "https://a.example", "https://evil.example"]


def mint(who: Caller, **wanted: object) -> MintedToken:
    return TokenService(SECRET, ManualClock()).mint(
        who, TokenRequest(**({"ttl_seconds": 60, "origins": None} | wanted))
    )


@settings(max_examples=300, deadline=None)
@given(
    team=st.builds(Team, name=st.just("red"), scopes=SCOPES, origins=CONFIGURED, unbound_tokens=st.booleans()),
    scopes=SCOPES,
    models=st.lists(GLOBS, min_size=1, max_size=2).map(tuple),
    origins=st.none() | CONFIGURED,
    wanted=st.fixed_dictionaries(
        {},
        optional={
            "scopes": st.lists(st.sampled_from(list(Scope))).map(tuple),
            "models": GLOBS,
            "origins": st.none() | ORIGINS,
            "ttl_seconds": st.sampled_from([9, 10, 3600, 3601]),
        },
    ),
)
def test_token_never_exceeds_its_key(team, scopes, models, origins, wanted):
    """Whatever is asked for, the page gets no scope, model or origin that its key lacks, and is bound to origins."""
    who = caller(*models, team=team, scopes=scopes & team.scopes, origins=origins)
    service = TokenService(SECRET, ManualClock())
    try:
        minted = service.mint(who, TokenRequest(**({"ttl_seconds": 60} | wanted)))
    except Unprocessable:
        return
    token = service.read(minted.token)
    assert set(token.scopes) <= who.scopes - {Scope.TOKENS, Scope.ACCOUNT, Scope.ADMIN}
    assert 10 <= token.expires_at - ManualClock().now() <= 3600
    page = caller(*models, *([token.models] if token.models is not None else []), team=team)
    assert all(who.may_run(model) for model in MODELS if page.may_run(model))
    bounds = who.origins or team.origins
    assert token.origins != ()
    assert token.origins is not None or (team.unbound_tokens and not who.origins)
    if token.origins and bounds:
        assert all(origin_allowed(bounds, origin) for origin in PAGES if origin_allowed(token.origins, origin))


@pytest.mark.parametrize(
    "wanted",
    [{"models": ("\x01" * 10**6,)}, {"scopes": ("\x01" * 10**6,)}, {"origins": ("\x01" * 10**6,)},
     {"origins": ("https://" + "a." * 10**6,)}, {"models": ("x/" + "\x01" * 10**6,) * 1000}],
    ids=["model", "scope", "origin", "long origin", "many"],
)  # fmt: skip
def test_a_refusal_quotes_the_beginning_of_a_long_text(wanted):
    """A body of megabytes does not come back as an answer of many more."""
    with pytest.raises(Unprocessable) as refused:
        mint(caller(), **wanted)
    assert max(len(field.description) for field in refused.value.fields) < 2000


def test_text_that_is_longer_than_a_token_is_not_verified():
    """Neither the signature nor the claims of megabytes are computed."""
    with pytest.raises(Unprocessable, match="renew"):
        mint(caller(), renew=TOKEN_PREFIX + "a" * 10**7 + ".b.c")


def test_token_has_default_scopes():
    """A page that asks for nothing in particular may read, predict and upload as its key may."""
    minted = mint(caller())
    assert minted.scopes == ("files", "predict", "read")
    assert (minted.team, minted.origins) == ("red", ())
    assert minted.token.startswith(TOKEN_PREFIX)


def test_token_without_origins_gets_those_of_its_key_or_team():
    """A request that names no page is bound to all of the team's."""
    request = TokenRequest(ttl_seconds=60)
    service = TokenService(SECRET, ManualClock())
    team = Team(name="green", scopes=RED.scopes, origins=(PAGE, "https://a.example"), unbound_tokens=True)
    assert service.mint(caller(team=team), request).origins == team.origins
    assert service.mint(caller(team=team, origins=(PAGE,)), request).origins == (PAGE,)
    with pytest.raises(Unprocessable, match="add origins, or pass null"):
        service.mint(caller(), request)


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"origins": ()}, "origins"),
        ({"origins": None}, "origins"),
        ({"ttl_seconds": 9}, "ttl_seconds"),
        ({"ttl_seconds": 3601}, "ttl_seconds"),
        ({"ttl_seconds": -1}, "ttl_seconds"),
        ({"scopes": ("train",)}, "scopes"),
        ({"scopes": ("tokens",)}, "scopes"),
        ({"scopes": ("fly",)}, "scopes"),
        ({"models": ("acme",)}, "models"),
        ({"models": ("other/*",)}, "models"),
        ({"models": ("*",)}, "models"),
        ({"origins": ("shop.example",)}, "origins"),
        ({"origins": ("https://shop.example/path",)}, "origins"),
        ({"origins": ("https://evil.example",)}, "origins"),
        ({"origins": ("*",)}, "origins"),
        ({"user": ""}, "user"),
        ({"user": "x" * 201}, "user"),
        ({"user": "a\nb"}, "user"),
    ],
)
def test_excess_request_is_named_in_the_refusal(wanted, field):
    """The developer learns what to remove."""
    with pytest.raises(Unprocessable) as caught:
        mint(caller(("acme/*",), origins=(PAGE,)), **({"origins": (PAGE,)} | wanted))
    assert [each.field for each in caught.value.fields] == [field]


def test_token_cannot_mint_tokens():
    """A token of a user makes no further ones."""
    with pytest.raises(Forbidden):
        mint(caller(user="ann"))


def test_every_token_is_unique():
    """Two pages of one moment can be distinguished."""
    assert mint(caller()).token != mint(caller()).token


def test_token_reads_back_as_minted():
    """What was minted is what is read."""
    clock = ManualClock()
    service = TokenService(SECRET, clock)
    minted = service.mint(caller(), TokenRequest(ttl_seconds=60, models=("a/x",), origins=None, user="ann"))
    token = service.read(minted.token)
    assert (token.team, token.key_id, token.user, token.models) == ("red", "k", "ann", ("a/x",))
    assert token.expires_at == minted.expires_at == clock.now() + 60


async def test_renewed_token_keeps_its_user_and_subject():
    """A token can be renewed by its team until a day after its expiry; another team cannot take it over."""
    clock = ManualClock()
    service = TokenService(SECRET, clock)

    def renew(old: str, who: Caller, **wanted: object) -> tuple[str | None, str | None]:
        token = service.read(service.mint(who, TokenRequest(ttl_seconds=60, origins=None, renew=old, **wanted)).token)
        return token.user, token.subject

    nobodys = service.mint(caller(), TokenRequest(ttl_seconds=60, origins=None))
    anns = service.mint(caller(), TokenRequest(ttl_seconds=60, origins=None, user="ann"))
    subject = service.read(nobodys.token).subject
    assert subject
    assert subject != service.read(anns.token).subject
    await clock.advance(24 * 3600)
    assert renew(nobodys.token, caller()) == (None, subject)
    assert renew(anns.token, caller())[0] == "ann"
    assert renew(anns.token, caller(), user="ben")[0] == "ben"
    green = Team(name="green", scopes=RED.scopes, unbound_tokens=True)
    for old, who in ((nobodys.token, caller(team=green)), ("rgt_x", caller())):
        with pytest.raises(Unprocessable, match="renew"):
            renew(old, who)
    await clock.advance(61)
    with pytest.raises(Unprocessable, match="renew"):
        renew(nobodys.token, caller())


CLAIMS = {"team": "red", "key_id": "k", "expires_at": 2e9, "scopes": ["admin"], "aud": "replicate-gateway", "exp": 2e9}


@pytest.mark.parametrize(
    "token",
    [
        "", "rgt_", "rgt_x", "rgt_a.b.c",
        "rgt_" + jwt.encode(CLAIMS, "", "none"),
        "rgt_" + jwt.encode(CLAIMS, b"x" * 32, "HS256"),
        "rgt_" + jwt.encode(CLAIMS | {"aud": "other"}, SECRET, "HS256"),
        "rgt_" + jwt.encode({name: CLAIMS[name] for name in CLAIMS if name != "aud"}, SECRET, "HS256"),
        "rgt_" + jwt.encode({name: CLAIMS[name] for name in CLAIMS if name != "exp"}, SECRET, "HS256"),
        "rgt_" + jwt.encode(CLAIMS | {"scopes": "admin"}, SECRET, "HS256"),
        "rgt_" + jwt.encode(CLAIMS | {"team": None}, SECRET, "HS256"),
        "rgt_" + jwt.encode({"aud": "replicate-gateway", "exp": 2e9}, SECRET, "HS256"),
        "rgt_" + jwt.encode(CLAIMS, SECRET, "HS256")[:-2],
        "rgt_é.é.é", "rgt_" + "." * 100,
    ],
)  # fmt: skip
def test_invalid_token_is_not_read(token):
    """Unsigned, signed by others, truncated, or of another kind."""
    with pytest.raises(Unauthenticated):
        TokenService(SECRET, ManualClock()).read(token)


@settings(deadline=None)
@given(st.data())
def test_changed_token_is_not_read(data):
    """No letter may differ, except those that encode the same bits."""
    service = TokenService(SECRET, ManualClock())
    text = service.mint(caller(team=RED), TokenRequest(ttl_seconds=60, origins=None)).token
    where = data.draw(st.integers(len(TOKEN_PREFIX), len(text) - 2))
    letter = data.draw(st.sampled_from("abcXYZ019-_."))
    if letter != text[where]:
        with pytest.raises(Unauthenticated):
            service.read(text[:where] + letter + text[where + 1 :])
