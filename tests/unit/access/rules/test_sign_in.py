"""Signing in at an issuer: what is sent, and which answers count."""

from base64 import b64decode
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote_plus, urljoin, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.access.rules import sign_in
from gateway.access.rules.discovery import Endpoints
from gateway.access.rules.issuers import ConsoleClient
from gateway.access.rules.json_web_tokens import TokenRefusal
from gateway.access.rules.sign_in import CodeExchange, Outcome, SignInRefusal
from tests.support.issuers import ISSUER, issuer

CLIENT = ConsoleClient(client_id="console", scopes=("openid", "groups"))
BACK = "https://ops.example.com/dashboard/sign-in/callback"
ENDPOINTS = Endpoints(authorization=f"{ISSUER}/authorize", token=f"{ISSUER}/token")
STRICT = Endpoints(authorization=f"{ISSUER}/authorize", token=f"{ISSUER}/token", names_itself=True)


def url(endpoint: str, state: str = "s", client: ConsoleClient = CLIENT) -> str:
    return sign_in.authorization_url(endpoint, client, BACK, state=state, nonce="n", verifier="v" * 43)


def test_challenge_is_that_of_the_rfc():
    """RFC 7636, appendix B."""
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert sign_in.challenge_of(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


def test_authorization_url_has_what_the_flow_needs():
    """The verifier stays here."""
    asked = dict(parse_qsl(urlsplit(url(ENDPOINTS.authorization)).query, strict_parsing=True))
    assert asked == {
        "response_type": "code",
        "client_id": "console",
        "redirect_uri": BACK,
        "scope": "openid groups",
        "state": "s",
        "nonce": "n",
        "code_challenge": sign_in.challenge_of("v" * 43),
        "code_challenge_method": "S256",
    }


@settings(max_examples=25)
@given(st.text(max_size=50), st.text(max_size=50))
def test_no_value_adds_a_parameter(state: str, client_id: str):
    """Whatever the values are; what the endpoint has as its query stays."""
    client = ConsoleClient(client_id=client_id)
    for endpoint in (f"{ISSUER}/authorize", f"{ISSUER}/authorize?realm=a%26b"):
        made = urlsplit(url(endpoint, state.encode(errors="replace").decode(), client))
        asked = parse_qs(made.query, keep_blank_values=True)
        assert asked.pop("realm", ["a&b"]) == ["a&b"]
        assert len(asked) == 8
        assert (made.netloc, made.path, made.fragment) == (urlsplit(ISSUER).netloc, "/authorize", "")


@pytest.mark.parametrize(
    ("query", "endpoints", "expected"),
    [
        ({"state": "s", "code": "c"}, ENDPOINTS, "c"),
        ({"state": "s", "code": "c", "iss": ISSUER}, ENDPOINTS, "c"),
        ({"state": "s", "code": "c", "iss": ISSUER}, STRICT, "c"),
        ({"state": "s", "code": "c"}, STRICT, Outcome.INVALID),
        ({"state": "s", "code": "c", "iss": f"{ISSUER}/"}, ENDPOINTS, Outcome.INVALID),
        ({"state": "s", "code": "c", "iss": "https://evil.example"}, STRICT, Outcome.INVALID),
        ({"state": "t", "code": "c"}, ENDPOINTS, Outcome.INVALID),
        ({"state": "", "code": "c"}, ENDPOINTS, Outcome.INVALID),
        ({"state": "\udcff", "code": "c"}, ENDPOINTS, Outcome.INVALID),
        ({"code": "c"}, ENDPOINTS, Outcome.INVALID),
        ({"state": "s"}, ENDPOINTS, Outcome.INVALID),
        ({"state": "s", "code": ""}, ENDPOINTS, Outcome.INVALID),
        ({"state": "s", "code": "a\r\nb"}, ENDPOINTS, Outcome.INVALID),
        ({"state": "s", "code": "c" * 5000}, ENDPOINTS, Outcome.INVALID),
        ({"state": "s", "error": "access_denied"}, ENDPOINTS, Outcome.DECLINED),
        ({"state": "s", "error": "access_denied", "code": "c"}, ENDPOINTS, Outcome.DECLINED),
        ({"state": "s", "error": "access_denied", "iss": "https://evil.example"}, ENDPOINTS, Outcome.INVALID),
        ({"state": "s", "error": "server_error"}, ENDPOINTS, Outcome.INVALID),
    ],
)
def test_answer_counts_for_its_attempt_and_issuer_only(
    query: dict[str, str], endpoints: Endpoints, expected: str | Outcome
):
    found = sign_in.read_answer(query, "s", issuer(), endpoints)
    assert (found.outcome if isinstance(found, SignInRefusal) else found) == expected


@settings(max_examples=25)
@given(st.text())
def test_an_error_is_shown_by_its_known_name_only(error: str):
    """It could be a text for somebody to believe."""
    found = sign_in.refusal_of(error)
    assert found.detail in {
        "The sign-in was declined there.",
        "The issuer refused the sign-in.",
        f"The issuer refused the sign-in ({error}).",
    }
    if f"({error})" in found.detail:
        assert error.isascii()
        assert error.replace("_", "").isalpha()


def asked_for(secret: str | None, *methods: str, client_id: str = "console") -> CodeExchange | SignInRefusal:
    client = ConsoleClient(client_id=client_id, client_secret=secret)
    return sign_in.token_request(client, methods, code="a&b", redirect_uri=BACK, verifier="v" * 43)


def test_public_client_sends_its_id_and_no_secret():
    made = asked_for(None, "client_secret_basic")
    assert isinstance(made, CodeExchange)
    assert made.authorization is None
    assert dict(parse_qsl(made.body.decode())) == {
        "grant_type": "authorization_code",
        "code": "a&b",
        "redirect_uri": BACK,
        "code_verifier": "v" * 43,
        "client_id": "console",
    }


@settings(max_examples=25)
@given(st.text(min_size=1).filter(str.isprintable), st.text(min_size=1).filter(str.isprintable))
@example("a:b", "c:d%+ é")
def test_secret_goes_by_basic_where_that_is_accepted(client_id: str, secret: str):
    """Each half form-encoded first (RFC 6749, 2.3.1): a colon in one of them separates nothing."""
    made = asked_for(secret, "private_key_jwt", "client_secret_post", "client_secret_basic", client_id=client_id)
    assert isinstance(made, CodeExchange)
    assert made.authorization is not None
    first, second = b64decode(made.authorization.removeprefix("Basic ")).decode("ascii").split(":")
    assert (unquote_plus(first), unquote_plus(second)) == (client_id, secret)
    assert "client_secret" not in dict(parse_qsl(made.body.decode()))


def test_secret_goes_by_post_or_not_at_all():
    made = asked_for("s&t", "client_secret_post")
    assert isinstance(made, CodeExchange)
    assert made.authorization is None
    assert dict(parse_qsl(made.body.decode()))["client_secret"] == "s&t"
    assert "s&t" not in repr(made)
    refused = asked_for("s", "private_key_jwt")
    assert isinstance(refused, SignInRefusal)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b'{"id_token": "a.b.c"}', "a.b.c"),
        (200, b'{"id_token": 1}', "no ID token"),
        (200, b"[]", "no ID token"),
        (200, b"<html>", "no ID token"),
        (200, b"[" * 100_000, "no ID token"),
        (400, b'{"error": "invalid_grant"}', "(invalid_grant)"),
        (400, b'{"error": "<b>call 0900</b>"}', "refused the sign-in."),
        (400, b'{"error": ["x"]}', "refused the sign-in."),
        (302, b'{"id_token": "a.b.c"}', "refused the sign-in."),
        (500, b"\xff", "refused the sign-in."),
    ],
)
def test_id_token_is_taken_from_a_success_only(status: int, body: bytes, expected: str):
    found = sign_in.id_token_in(status, body)
    if isinstance(found, SignInRefusal):
        assert expected in found.detail
    else:
        assert found == expected


GOOD: dict[str, Any] = {"iss": ISSUER, "aud": "console", "nonce": "n"}


@pytest.mark.parametrize(
    ("more", "word"),
    [
        ({}, None),
        ({"aud": ["console"]}, None),
        ({"aud": ["console", "other"], "azp": "console"}, None),
        ({"azp": "console"}, None),
        ({"aud": ["console", "other"]}, "azp"),
        ({"aud": ["console", "other"], "azp": "other"}, "azp"),
        ({"azp": "other"}, "azp"),
        ({"azp": None}, "azp"),
        ({"aud": "other"}, "aud"),
        ({"aud": ["other"]}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": ["console", 1]}, "aud"),
        ({"iss": f"{ISSUER}/"}, "iss"),
        ({"iss": None}, "iss"),
        ({"nonce": "m"}, "nonce"),
        ({"nonce": ""}, "nonce"),
        ({"nonce": None}, "nonce"),
        ({"nonce": ["n"]}, "nonce"),
        ({"nonce": "\ud800"}, "nonce"),
    ],
)
def test_id_token_is_for_this_client_and_this_attempt(more: dict[str, Any], word: str | None):
    """OpenID Connect Core 1.0, 3.1.3.7."""
    found = sign_in.check_id_token(issuer(), "console", "n", GOOD | more)
    assert (None if found is None else f"({word})" in found.detail) == (None if word is None else True)
    assert word is None or isinstance(found, TokenRefusal)


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard", "/dashboard?month=2026-01", "/dashboard/predictions", "/dashboard/predictions/abc",
        "/dashboard/predictions?target=acme/*&cursor=%3D", "/dashboard/usage?by=tag:project", "/dashboard/sign-ins",
    ],
)  # fmt: skip
def test_the_page_that_was_asked_for_is_opened(path: str):
    assert sign_in.page_after(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "//evil.example", "/\\evil.example", "https://evil.example/dashboard", "javascript:alert(1)",
        "/dashboard@evil.example", "/dashboardevil", "/dashboard/../admin/config", "/dashboard/%2e%2e/admin/config",
        "/dashboard/%2E%2E%2fadmin", "/dashboard/..", "/dashboard/.", "/dashboard\\..\\admin",
        "/dashboard/%5c..%5cadmin",
        "/dashboard//evil.example", "/dashboard/a\r\nSet-Cookie: x=y", "/dashboard/a\tb", "/dashboard/ä",
        "/dashboard/sign-in", "/dashboard/sign-in/start?issuer=x", "/dashboard/sign-in?next=/dashboard",
        "/dashboard/%73ign-in/start?issuer=x", "/dashboard/sign%2Din", "/dashboard/sign-in%2Fstart?issuer=x",
        "/dashboard?" + "x" * 1000, " /dashboard", "/dashboard\n",
    ],
)  # fmt: skip
def test_nothing_else_is_opened(path: str):
    """No other host, no other route of the listener, and no second sign-in."""
    assert sign_in.page_after(path) == "/dashboard"


@given(st.text() | st.from_regex(r"/dashboard[/?.%25cef\\#;@:&a-]*", fullmatch=True))
def test_the_page_is_always_one_of_the_console(asked: str):
    """However it is written, and as a browser resolves it."""
    page = sign_in.page_after(asked)
    dotted = page.replace("%2e", ".").replace("%2E", ".")
    resolved = urlsplit(urljoin("https://ops.example.com/dashboard/sign-in", dotted))
    assert (resolved.scheme, resolved.netloc) == ("https", "ops.example.com")
    assert resolved.path == "/dashboard" or resolved.path.startswith("/dashboard/")
    assert page.isascii()
    assert page.isprintable()
