"""Tokens of issuers: the users of an application call the gateway with what they signed in with."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.http_calls import PAGE, STRANGER, Reply, ask, assert_problem, metrics_of
from tests.support.issuers import FROM_PAGE, Provider, jwks, new_key, provider
from tests.support.samples import finished
from tests.support.secret_scanner import SecretScanner
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import version_of

ALPHA: dict[str, Any] = {"alpha": {"origins": [PAGE], "scopes": ["read", "predict", "files", "train"]}}


@pytest.fixture
async def issuer() -> AsyncIterator[Provider]:
    """Where users sign in."""
    async with provider() as made:
        yield made


@pytest.fixture
async def stack(open_gateway: OpenGateway, issuer: Provider) -> AsyncIterator[Stack]:
    """A gateway that accepts its tokens for team alpha."""
    async with open_gateway(teams=ALPHA, issuers=[issuer.config()]) as made:
        yield made


async def get(stack: Stack, token: str, path: str = "/v1/predictions", origin: str = PAGE) -> Reply:
    return await ask(stack, "GET", path, key=token, headers={"Origin": origin})


async def create(stack: Stack, token: str, **more: Any) -> Reply:
    version = version_of(stack.upstream, "acme/storyteller")
    body = {"version": version, "input": {"prompt": "hi"}, "stream": True} | more.pop("body", {})
    return await ask(stack, "POST", "/v1/predictions", key=token, json=body, headers=FROM_PAGE | more)


async def test_a_user_runs_and_streams_with_a_token(stack: Stack, issuer: Provider, access_log: Any):
    """No key and no server of the application is needed. The log has the user; usage counts it as of the issuer."""
    token = issuer.token("ann")
    made = await create(stack, token)
    assert made.status == 201, made.text
    stream = await ask(stack, "GET", made.json["urls"]["stream"], key=None, headers=FROM_PAGE)
    assert b"event: done" in stream.body
    await finished(stack, made.json["id"])
    seen = await get(stack, token, f"/v1/predictions/{made.json['id']}")
    assert seen.json["status"] == "succeeded"
    assert [each["id"] for each in (await get(stack, token)).json["results"]] == [made.json["id"]]
    assert (await get(stack, issuer.token("bob"))).json["results"] == []
    assert (await get(stack, issuer.token("bob"), f"/v1/predictions/{made.json['id']}")).status == 404
    usage = (await ask(stack, "GET", "/gateway/usage?by=user")).json
    assert [each["user"] for each in usage["rows"]] == ["id:ann"]
    assert "id:ann" in {line.get("user") for line in access_log.lines}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "Token"])
async def test_a_token_is_taken_wherever_a_key_is(stack: Stack, issuer: Provider, scheme: str):
    """Replicate's older clients write Token."""
    headers = FROM_PAGE | {"Authorization": f"{scheme} {issuer.token()}"}
    assert (await ask(stack, "GET", "/v1/predictions", headers=headers)).status == 200


async def test_a_token_works_from_the_pages_of_its_team_only(stack: Stack, issuer: Provider):
    """Whoever copies it cannot use it in a page of his own."""
    for headers in ({"Origin": STRANGER}, {}):
        refused = await ask(stack, "GET", "/v1/predictions", key=issuer.token(), headers=headers)
        assert "from its allowed origins" in assert_problem(refused, 403, origin=None)["detail"]


async def test_a_native_app_has_no_origin(open_gateway: OpenGateway, issuer: Provider):
    """It says so in the config."""
    async with open_gateway(issuers=[issuer.config(origins="none")]) as stack:
        assert (await ask(stack, "GET", "/v1/predictions", key=issuer.token())).status == 200


async def test_a_refusal_says_what_is_wrong(open_gateway: OpenGateway, issuer: Provider):
    """In the form of all errors, with what the page needs to read it."""
    mapped = issuer.config(team_claim="org", teams={"a": "alpha"}, scope_claim="permissions")
    async with open_gateway(teams=ALPHA, issuers=[mapped]) as stack:
        good = {"org": "a", "permissions": ["read", "predict", "admin"]}
        tokens = {
            "has expired": issuer.token(exp=1, **good),
            "is not valid yet": issuer.token(nbf=4e9, **good),
            "another audience": issuer.token(aud="x", **good),
            "does not accept tokens of the issuer": issuer.token(iss="https://evil.example", **good),
            "does not belong to a team": issuer.token(**good | {"org": "b"}),
            "lacks the claim 'org'": issuer.token(**good | {"org": None}),
            "lacks the claim 'permissions'": issuer.token(org="a"),
            "lacks the claim 'sub'": issuer.token(sub=None, **good),
            "no such key": issuer.token(header={"kid": "other"}, **good),
            "is not valid": issuer.token(**good)[:-4] + "AAAA",
        }
        for words, token in tokens.items():
            reply = await get(stack, token)
            assert words in assert_problem(reply, 401, origin=PAGE)["detail"], words
            assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert (await get(stack, issuer.token(**good))).status == 200
        assert (await ask(stack, "GET", "/v1/files", key=issuer.token(**good), headers=FROM_PAGE)).status == 403
        counted = await metrics_of(stack)
        assert 'replicate_gateway_issuer_tokens_refused_total{reason="expired"} 1.0' in counted
        assert 'replicate_gateway_issuer_tokens_refused_total{reason="claim"} 3.0' in counted
        assert 'replicate_gateway_issuer_key_reads_total{issuer="id",outcome="read"} 1.0' in counted
        assert 'replicate_gateway_issuer_key_age_seconds{issuer="id"} ' in counted
        assert "replicate_gateway_issuer_tokens_kept 2.0" in counted


async def test_each_user_has_limits_and_the_issuer_too(open_gateway: OpenGateway, issuer: Provider):
    """One visitor does not use up what the others may have."""
    limited = issuer.config(per_user={"requests_per_minute": 2, "burst": 2}, requests_per_minute=1000)
    async with open_gateway(teams=ALPHA, issuers=[limited]) as stack:
        ann, bob = issuer.token("ann"), issuer.token("bob")
        assert [(await get(stack, ann)).status for _ in range(3)] == [200, 200, 429]
        assert (await get(stack, bob)).status == 200
        shown = (await get(stack, bob, "/gateway/limits")).json
        assert "user" in {each["of"] for each in shown["limits"]}


async def test_an_issuer_may_be_away(stack: Stack, issuer: Provider):
    """Nobody whose key is known notices it: it is not asked."""
    assert (await get(stack, issuer.token())).status == 200
    reads = len(issuer.requests)
    issuer.status = 500
    assert [(await get(stack, issuer.token(str(n)))).status for n in range(3)] == [200, 200, 200]
    assert len(issuer.requests) == reads


async def test_an_issuer_that_was_never_there_is_a_503(open_gateway: OpenGateway, issuer: Provider):
    """The gateway starts all the same, and serves everybody else."""
    issuer.status = 503
    async with open_gateway(teams=ALPHA, issuers=[issuer.config()]) as stack:
        reply = await get(stack, issuer.token())
        problem = assert_problem(reply, 503, origin=PAGE)
        assert "cannot be read" in problem["detail"]
        assert reply.headers["Retry-After"] == "10"
        assert (await ask(stack, "GET", "/v1/predictions")).status == 200


async def test_a_hundred_pages_make_one_read(open_gateway: OpenGateway, issuer: Provider):
    """Also while the first one is still on its way."""
    issuer.may_answer.clear()
    async with open_gateway(teams=ALPHA, issuers=[issuer.config(jwks_url=f"{issuer.url}/jwks")]) as stack:
        asking = [asyncio.create_task(get(stack, issuer.token(str(n)))) for n in range(20)]
        assert (await ask(stack, "GET", "/v1/predictions")).status == 200
        issuer.may_answer.set()
        assert {reply.status for reply in await asyncio.gather(*asking)} == {200}
        assert issuer.requests == ["/jwks"]


async def test_a_stranger_with_a_key_of_the_same_name_gets_nothing(stack: Stack, issuer: Provider):
    """Only what the issuer publishes counts."""
    token = Provider(url=issuer.url, key=new_key()).token()
    assert_problem(await get(stack, token), 401, origin=PAGE)
    issuer.body = jwks(new_key("k9"))
    assert_problem(await get(stack, token), 401, origin=PAGE)


async def test_a_token_in_the_url_or_the_body_is_refused(stack: Stack, issuer: Provider):
    """It would be in logs of proxies, and would reach the model."""
    token = issuer.token()
    assert (await get(stack, token, f"/v1/predictions?note={token}")).status == 422
    assert (await create(stack, token, body={"input": {"prompt": token}})).status == 422


async def test_without_issuers_a_token_is_an_unknown_key(gateway: Stack, issuer: Provider):
    """And nothing is asked of anybody."""
    refused = assert_problem(await get(gateway, issuer.token()), 401, origin=None)
    assert "valid authentication token" in refused["detail"]
    assert issuer.requests == []


async def test_no_token_is_in_any_answer_or_log(stack: Stack, issuer: Provider, secret_scanner: SecretScanner):
    """Neither a valid one nor a refused one, nor in what goes upstream or into the store."""
    tokens = [issuer.token("ann"), issuer.token("ann", exp=1), issuer.token("ann", iss="https://evil.example")]
    for token in tokens:
        secret_scanner.add("a token of an issuer", token)
        secret_scanner.add("a signature", token.rpartition(".")[2])
    for token in tokens:
        await create(stack, token)
        await get(stack, token)
    secret_scanner.scan("the metrics", (await metrics_of(stack)).encode())
