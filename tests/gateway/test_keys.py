"""Keys: what opens the door, for how long, from where, and that a key never travels on."""

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import pytest

from gateway.access.rules.api_keys import digest, new_key
from gateway.domain.records import Key
from tests.support.audit import BY_TEST
from tests.support.http_calls import PAGE, STRANGER, Reply, ask, assert_problem, raw_request, send_raw
from tests.support.issued_keys import Issuer, mint
from tests.support.polling import attempts
from tests.support.samples import create
from tests.support.secret_scanner import SecretScanner
from tests.support.stack import OpenGateway, Stack


async def account(stack: Stack, key: str | None, **headers: str) -> Reply:
    """Read the account; pages of tokens send their Origin."""
    if key is not None and key.startswith("rgt_"):
        headers = {"Origin": PAGE} | headers
    return await ask(stack, "GET", "/v1/account", key=key, headers=headers)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition. That it takes a second at most is in tests/unit/access/test_authentication.py."""
    async for _ in attempts():
        if await condition():
            return


@pytest.mark.parametrize("scheme", ["Bearer", "Token", "bearer", "TOKEN", "Bearer  "])
async def test_bearer_and_token_schemes_are_accepted(gateway: Stack, scheme: str):
    """Older clients send Token, newer ones Bearer."""
    assert (await account(gateway, None, Authorization=f"{scheme} {gateway.keys['alpha']}")).status == 200


GARBAGE = [
    "",
    "Bearer",
    "Bearer ",
    "Token ",
    "Basic {key}",
    "{key}",
    "Bearer{key}",
    "Bearer {key}x",
    "Bearer x{key}",
    "Bearer {swapped}",
    "Bearer {key} {key}",
    "Bearer {key},Bearer {key}",
    "Bearer null",
    "Bearer undefined",
    "Bearer rgw_",
    "Bearer rgw_aaaaaaaaaaaa_" + "b" * 32,
    "Bearer rgw_" + "a" * 5000,
    "Bearer rgt_",
    "Bearer rgt_x.y.z",
    "Bearer rgt_eyJhbGciOiJub25lIn0.e30.",
    "Bearer r8_" + "a" * 37,
    "Digest username=x",
    "Bearer \u20ac\u20ac",
    "Bearer {digest}",
    "Bearer alpha/default",
]


@pytest.mark.parametrize("given", GARBAGE)
async def test_invalid_authorization_is_401(gateway: Stack, given: str):
    """Every refusal is a 401 in Replicate's words and does not say what was wrong with the key."""
    key = gateway.keys["alpha"]
    value = given.format(key=key, swapped=key.swapcase(), digest=digest(key))
    reply = await send_raw(gateway, raw_request("GET", "/v1/account", [("Authorization", value)]))
    problem = assert_problem(reply, 401)
    assert problem["title"] == "Unauthenticated"
    assert problem["detail"].startswith("You did not pass a")
    assert reply.headers["WWW-Authenticate"] == "Bearer"


async def test_authorization_with_arbitrary_bytes_is_401(gateway: Stack):
    """A header of any bytes is a wrong key, not a crash."""
    for value in (b"Bearer \xff\xfe\xfd", b"\x80", b"Bearer rgw_\xff", b"Bearer rgt_\xff.\xff.\xff"):
        reply = await send_raw(gateway, raw_request("GET", "/v1/account", [(b"Authorization", value)]))
        assert_problem(reply, 401)


async def test_second_authorization_header_is_ignored(gateway: Stack):
    """The first one counts; a second neither helps nor is stored."""
    good, bad = f"Bearer {gateway.keys['alpha']}", "Bearer nothing"
    reply = await send_raw(
        gateway, raw_request("GET", "/v1/account", [("Authorization", bad), ("Authorization", good)])
    )
    assert reply.status in (400, 401)


async def test_issued_key_works_and_revoked_key_stops(gateway: Stack, issuer: Issuer):
    """`gateway keys create` and `revoke` run beside a gateway that serves."""
    key_id, key = await issuer.issue()
    assert (await account(gateway, key)).json["username"] == "alpha"
    await issuer.store.revoke_key(key_id, time.time(), actor=BY_TEST)
    await eventually(lambda: refused(gateway, key))
    _, other = await issuer.issue(team="beta")
    assert (await account(gateway, other)).json["username"] == "beta"


async def refused(stack: Stack, key: str) -> bool:
    return (await account(stack, key)).status == 401


async def test_key_used_before_it_was_issued_works_soon(gateway: Stack, issuer: Issuer):
    """A deploy that starts before its key exists recovers by itself."""
    minted = new_key(secrets.token_bytes)
    issuer.secret_scanner.add("a key to come", minted.key)
    assert (await account(gateway, minted.key)).status == 401
    await issuer.store.add_key(
        Key(id=minted.id, team="alpha", name="late", sha256=minted.sha256, created_at=time.time()), actor=BY_TEST
    )

    async def works() -> bool:
        return (await account(gateway, minted.key)).status == 200

    await eventually(works)


async def test_key_stops_working_when_it_expires(gateway: Stack, issuer: Issuer):
    """An expired key is refused from that moment."""
    _, key = await issuer.issue(expires_at=time.time() + 0.5)
    assert (await account(gateway, key)).status == 200
    await eventually(lambda: refused(gateway, key))
    _, past = await issuer.issue(expires_at=time.time() - 1)
    assert await refused(gateway, past)


async def test_rotated_key_overlaps_with_its_successor(gateway: Stack, issuer: Issuer):
    """During a rotation both keys work, afterwards only the new one."""
    key_id, old = await issuer.issue()
    minted = new_key(secrets.token_bytes)
    issuer.secret_scanner.add("a successor", minted.key)
    successor = Key(id=minted.id, team="alpha", name="next", sha256=minted.sha256, created_at=time.time())
    await issuer.store.rotate_key(key_id, successor, time.time() + 0.4, actor=BY_TEST)
    assert (await account(gateway, minted.key)).status == 200
    assert (await account(gateway, old)).status == 200
    await eventually(lambda: refused(gateway, old))
    assert (await account(gateway, minted.key)).status == 200


async def test_key_of_a_removed_team_is_refused(gateway: Stack, issuer: Issuer):
    """Removing a team from the config removes its keys."""
    _, key = await issuer.issue(team="gone")
    assert await refused(gateway, key)


async def test_restricted_issued_key_is_enforced(gateway: Stack, issuer: Issuer):
    """Scopes and targets of an issued key apply and cannot exceed the team's."""
    _, key = await issuer.issue(scopes=("read", "account", "admin"))
    assert (await ask(gateway, "GET", "/v1/models", key=key)).status == 200
    assert (await account(gateway, key)).json["username"] == "alpha", "the team has no scope `account` to give"
    assert (await ask(gateway, "GET", "/v1/predictions", key=key)).status == 403
    _, limited = await issuer.issue(models=("acme/storyteller",))
    assert (await create(gateway, key=limited, model="acme/storyteller")).status == 201
    assert_problem(await create(gateway, key=limited), 403, origin=None)


async def publish(issuer: Issuer) -> str:
    return (await issuer.issue(origins=(PAGE,)))[1]


@pytest.mark.parametrize("origin", [None, STRANGER, "null", PAGE + ".evil.net", PAGE + ":8443", "http://app.example.com",
                                    PAGE + "/", ""])  # fmt: skip
async def test_publishable_key_works_from_its_page_only(gateway: Stack, issuer: Issuer, origin: str | None):
    """A key copied out of a page does not work from a server or from another page."""
    key = await publish(issuer)
    reply = await ask(gateway, "GET", "/v1/models", key=key, headers={"Origin": origin} if origin is not None else {})
    problem = assert_problem(reply, 403, origin=None)
    assert "allowed origins" in problem["detail"]
    assert ("not in other programs" in problem["detail"]) == (origin is None)
    assert "Access-Control-Allow-Origin" not in reply.headers
    assert not len(gateway.upstream.requests)
    allowed = await ask(gateway, "GET", "/v1/models", key=key, headers={"Origin": PAGE})
    assert allowed.status == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == PAGE


async def test_browser_token_is_limited_to_what_it_asked_for(gateway: Stack, secret_scanner: SecretScanner):
    """A page gets some scopes, some models and a user's name, and cannot mint itself more."""
    minted = await mint(gateway, scopes=["read", "predict"], models=["acme/storyteller"], user="u1")
    assert minted.status == 201
    assert minted.json["team"] == "alpha"
    assert sorted(minted.json["scopes"]) == ["predict", "read"]
    token = minted.json["token"]
    secret_scanner.add("a browser token", token)
    assert (await account(gateway, token)).json["username"] == "alpha"
    page = {"Origin": PAGE}
    assert (await create(gateway, key=token, model="acme/storyteller", headers=page)).status == 201
    assert_problem(await create(gateway, key=token, model="acme/slow", headers=page), 403)
    assert (await ask(gateway, "GET", "/v1/files", key=token, headers=page)).status == 403
    minting = {"ttl_seconds": 60}
    assert_problem(await ask(gateway, "POST", "/gateway/tokens", key=token, json=minting, headers=page), 403)
    listed = (await ask(gateway, "GET", "/v1/predictions", key=token, headers=page)).json["results"]
    assert len(listed) == 1


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"scopes": ["account"]}, "scopes"),
        ({"scopes": ["tokens"]}, "scopes"),
        ({"scopes": ["admin"]}, "scopes"),
        ({"scopes": ["everything"]}, "scopes"),
        ({"models": ["a/b/c"]}, "models"),
        ({"models": ["acme/storyteller"] * 101}, "models"),
        ({"models": ["a b/c"]}, "models"),
        ({"origins": [STRANGER]}, "origins"),
        ({"origins": ["not an origin"]}, "origins"),
        ({"origins": []}, "origins"),
        ({"origins": None}, "origins"),
        ({"user": "a\nb"}, "user"),
        ({"user": "x" * 201}, "user"),
        ({"ttl_seconds": 5}, "ttl_seconds"),
    ],
)
async def test_browser_token_cannot_exceed_its_key(gateway: Stack, wanted: dict[str, Any], field: str):
    """A request for more is refused by name, not silently reduced."""
    problem = assert_problem(await mint(gateway, **wanted), 422, origin=None)
    assert {each["field"] for each in problem["invalid_fields"]} == {field}


@pytest.mark.parametrize("wanted", [{"origins": [PAGE]}, {}])
async def test_browser_token_works_in_its_teams_pages_only(
    gateway: Stack, secret_scanner: SecretScanner, wanted: dict[str, Any]
):
    """A token that leaks from its page is of no use elsewhere, also if its request named no origins."""
    minted = (await mint(gateway, user="alice", **wanted)).json
    assert minted["origins"] == [PAGE]
    token = minted["token"]
    secret_scanner.add("a browser token", token)
    assert (await account(gateway, token, Origin=PAGE)).status == 200
    assert (await account(gateway, token, Origin=STRANGER)).status == 403
    assert (await ask(gateway, "GET", "/v1/account", key=token)).status == 403


@pytest.mark.parametrize("wanted", [{}, {"origins": None}, {"origins": []}])
async def test_team_without_origins_names_those_of_each_token(gateway: Stack, wanted: dict[str, Any]):
    """Nothing is unbound by omission: the refusal tells to add origins or to pass null."""
    problem = assert_problem(await mint(gateway, "beta", **wanted), 422, origin=None)
    assert [each["field"] for each in problem["invalid_fields"]] == ["origins"]
    assert (await mint(gateway, "beta", origins=[STRANGER])).json["origins"] == [STRANGER]


async def test_null_mints_an_unbound_token_where_the_team_allows_it(open_gateway: OpenGateway):
    """Native apps have no origin. The setting of one team does not change another's."""
    async with open_gateway(teams={"beta": {"unbound_tokens": True}}) as stack:
        minted = await mint(stack, "beta", origins=None)
        assert (minted.status, minted.json["origins"]) == (201, [])
        for headers in ({}, {"Origin": STRANGER}):
            reply = await ask(stack, "GET", "/v1/account", key=minted.json["token"], headers=headers)
            assert reply.json["username"] == "beta"
        assert_problem(await mint(stack, "beta"), 422, origin=None)
        assert_problem(await mint(stack, origins=None), 422, origin=None)


async def test_browser_token_is_revoked_with_its_key(gateway: Stack, issuer: Issuer):
    """Revoking a key revokes the tokens it minted, within a second."""
    key_id, key = await issuer.issue()
    token = (await mint(gateway, key)).json["token"]
    issuer.secret_scanner.add("a browser token", token)
    assert (await account(gateway, token)).status == 200
    await issuer.store.revoke_key(key_id, time.time(), actor=BY_TEST)
    await eventually(lambda: refused(gateway, token))


async def test_browser_token_is_valid_for_its_gateway_and_lifetime_only(gateway: Stack):
    """A token with a changed letter, or signed with another secret, is refused."""
    token = (await mint(gateway)).json["token"]
    claims = jwt.decode(token[4:], options={"verify_signature": False})
    for forged in (
        token[:-3] + ("aaa" if token[-3:] != "aaa" else "bbb"),
        "rgt_" + jwt.encode(claims, "x" * 32, "HS256"),
        "rgt_" + jwt.encode(claims, None, "none"),
        "rgt_" + jwt.encode(claims | {"aud": "another"}, "y" * 32, "HS256"),
        token + "x",
    ):
        assert await refused(gateway, forged)
    assert claims["expires_at"] - time.time() < 61


async def test_browser_tokens_survive_a_restart(open_gateway: OpenGateway):
    """A deploy of the gateway does not log out every page."""
    async with open_gateway() as stack:
        token = (await mint(stack)).json["token"]
        keys = stack.keys
    async with open_gateway(keys=keys) as stack:
        assert (await account(stack, token)).status == 200
