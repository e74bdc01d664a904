"""What a web page can see and do with its browser token or publishable key: only what concerns its own user."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from gateway.http.routes import OWN, PUBLIC
from tests.support.http_calls import PAGE, Reply, ask, assert_problem
from tests.support.public_callers import (
    ALICE,
    ALICE_AGAIN,
    BOB,
    NOBODY,
    NOBODY_ELSE,
    PAGE_KEY,
    PUBLIC_CREDENTIALS,
    SERVER,
    TEAM,
    TOKEN_SCOPES,
    Callers,
    callers,
    mint,
)
from tests.support.samples import UNKNOWN_FILE, UNKNOWN_ID, upload
from tests.support.stack import OpenGateway

ROUTES = {route.name: route for route in (*PUBLIC, *OWN)}


@pytest.fixture
async def people(open_gateway: OpenGateway) -> AsyncIterator[Callers]:
    """Every kind of credential of team alpha."""
    async with open_gateway(teams={"alpha": dict(TEAM)}) as stack:
        yield await callers(stack)


@pytest.mark.parametrize("who", PUBLIC_CREDENTIALS)
@pytest.mark.parametrize("name", ["webhooks.secret", "gateway.usage", "gateway.tokens"])
async def test_page_cannot_use_routes_that_describe_the_team(people: Callers, name: str, who: str):
    """No visitor gets the signing secret, the team's usage, or tokens for other users."""
    refused = assert_problem(await people.route(who, ROUTES[name]), 403, origin=PAGE)
    assert "server's key" in refused["detail"]
    assert (await people.route(SERVER, ROUTES[name])).status in (200, 201)


@pytest.mark.parametrize("path", ["/webhooks/default/secret", "/v1/v1/webhooks/default/secret"])
async def test_every_prefix_of_the_secret_is_closed(people: Callers, path: str):
    """A base URL with another prefix opens nothing."""
    assert_problem(await people.ask(ALICE, "GET", path), 403)


@pytest.mark.parametrize("who", [ALICE, NOBODY, PAGE_KEY])
@pytest.mark.parametrize("name", ["gateway.limits", "gateway.estimate"])
async def test_page_sees_limits_of_its_own_user_only(people: Callers, name: str, who: str):
    """What the team, its key and its other users have spent is not shown to a visitor."""
    for each in (SERVER, BOB):
        assert (await people.run(each)).json["status"] == "succeeded"
    shown = (await people.route(who, ROUTES[name])).json
    limits = shown.get("gateway_limits", shown.get("limits"))
    assert {each["of"] for each in limits} <= {"user", "address"}
    assert [each["used_microusd"] for each in limits] == [0] * len(limits)
    assert len(limits) == (1 if who == ALICE else 0)
    shown = (await people.route(SERVER, ROUTES[name])).json
    assert {"team", "account"} <= {each["of"] for each in shown.get("gateway_limits", shown.get("limits"))}


REFUSING: Mapping[str, Mapping[str, Any]] = {
    "team": {"budget_usd_per_day": 0.000123},
    "user": {"per_user": {"budget_usd_per_day": 0.000123}},
}


@pytest.mark.parametrize("whose", REFUSING)
async def test_budget_refusal_shows_a_page_only_amounts_of_its_user(open_gateway: OpenGateway, whose: str):
    """A visitor over the team's budget gets 402 with neither the budget nor what was spent of it."""
    async with open_gateway(teams={"alpha": dict(TEAM) | REFUSING[whose]}) as stack:
        people = await callers(stack)
        refused = await people.predict(ALICE)
        problem = assert_problem(refused, 402)
        assert problem["title"] == "Budget exceeded"
        # The estimate is above the whole budget: to wait does not help.
        assert "Retry-After" not in refused.headers
        shown = refused.text.replace(refused.headers["X-Request-Id"], "") + str(refused.headers.getall("RateLimit", []))
        assert ("0.000123" in shown) == ("microusd" in shown) == (whose == "user")
        if whose == "team":
            assert "limit" not in problem
            assert "budget_usd_per_day of your team" in problem["detail"]
            assert "0.000123" in (await people.predict(SERVER)).text


async def test_explanation_shows_a_page_no_limits_of_its_team(people: Callers):
    """A visitor learns the budget of its user that the prediction passed, and not the team's."""
    made = (await people.predict(ALICE)).json["id"]
    for who, whose in ((ALICE, {"user"}), (SERVER, {"team", "user"})):
        explained = (await people.ask(who, "GET", f"/gateway/explain/{made}")).json
        assert {each["of"] for each in explained["limits"]["passed"]} == whose


BY_ID = (
    "predictions.get", "predictions.cancel", "trainings.get", "trainings.cancel", "gateway.explain",
    "files.get", "files.delete", "files.download",
)  # fmt: skip
LISTS = ("predictions.list", "trainings.list", "files.list")
EVERYBODY = (SERVER, ALICE, ALICE_AGAIN, BOB, NOBODY, NOBODY_ELSE, PAGE_KEY)
SAME_OWNER = {ALICE: (ALICE, ALICE_AGAIN), NOBODY: (NOBODY,), PAGE_KEY: (PAGE_KEY,)}
CHANGING = ("x-request-id", "date", "server-timing")


def fixed(reply: Reply) -> tuple[int, list[tuple[str, str]], bytes]:
    """Return what equal answers have in common."""
    headers = [(name.lower(), value) for name, value in reply.headers.items() if name.lower() not in CHANGING]
    return reply.status, sorted(headers), reply.body


@pytest.mark.parametrize("who", PUBLIC_CREDENTIALS)
@pytest.mark.parametrize("name", BY_ID)
async def test_page_reaches_by_id_only_what_its_owner_made(people: Callers, name: str, who: str):
    """What others made answers like an unknown id, byte for byte, and upstream is not asked."""
    unknown = fixed(await people.route(who, ROUTES[name], id=UNKNOWN_ID, file_id=UNKNOWN_FILE))
    assert unknown[0] == 404
    requests = people.stack.upstream.requests
    for maker in EVERYBODY:
        if maker not in SAME_OWNER[who]:
            theirs = await people.make_works(maker)
            # With the server's look, the prediction is in the gateway's memory.
            assert (await people.route(SERVER, ROUTES["predictions.get"], id=theirs.prediction)).status == 200
            requests.clear()
            reply = await people.route(who, ROUTES[name], **theirs.of(ROUTES[name]))
            assert fixed(reply) == unknown, f"of {maker}: {reply.text}"
            assert not requests.count("files.*")
            assert not requests.count("*.cancel")
    for maker in SAME_OWNER[who]:
        mine = await people.make_works(maker)
        requests.clear()
        reply = await people.route(who, ROUTES[name], **mine.of(ROUTES[name]))
        assert reply.status < 300 or requests.count("files.download"), f"of {maker}: {reply.text}"


@pytest.mark.parametrize("name", LISTS)
async def test_page_lists_only_what_its_owner_made(people: Callers, name: str):
    """A user sees what all its tokens made, a token without a user its own; a publishable key has no lists."""
    family = name.partition(".")[0].removesuffix("s")
    made = {who: getattr(await people.make_works(who), family) for who in EVERYBODY}
    for who in (ALICE, ALICE_AGAIN, BOB, NOBODY):
        listed = (await people.route(who, ROUTES[name])).json["results"]
        mine = (ALICE, ALICE_AGAIN) if who in (ALICE, ALICE_AGAIN) else (who,)
        assert {each["id"] for each in listed} == {made[each] for each in mine}
    refused = assert_problem(await people.route(PAGE_KEY, ROUTES[name]), 403)
    assert "browser token" in refused["detail"]
    listed = (await people.route(SERVER, ROUTES[name])).json["results"]
    assert {each["id"] for each in listed} == set(made.values())


async def test_page_cannot_use_the_file_of_another_user(people: Callers):
    """A link to another user's file in an input is refused like one to an unknown file."""
    file = (await people.make_works(BOB)).file
    for who, status in ((ALICE, 422), (NOBODY, 422), (PAGE_KEY, 422), (BOB, 201)):
        reply = await people.predict(who, input={"image": f"{people.stack.base_url}/files/{file}"})
        assert reply.status == status, reply.text
        if status == 422:
            assert reply.json["invalid_fields"][0]["field"] == "input.image"


async def test_equal_bytes_of_two_users_are_two_files(people: Callers):
    """Bytes are sent upstream once; each user has a file of its own, which the other does not see."""
    ids = [(await people.ask(who, "POST", "/v1/files", **upload(b"same"))).json["id"] for who in (ALICE, BOB)]
    assert people.stack.upstream.requests.count("files.create") == 1
    for who, seen in ((ALICE, [200, 404]), (BOB, [404, 200])):
        assert [(await people.ask(who, "GET", f"/v1/files/{file}")).status for file in ids] == seen


async def test_shared_run_shows_a_page_no_id_of_another_user(people: Callers):
    """Bob's answer comes from the run of alice's prediction; its explanation does not name that prediction."""
    made, hit = [(await people.run(who, prompt="same")).json["id"] for who in (ALICE, BOB)]
    explained = (await people.ask(BOB, "GET", f"/gateway/explain/{hit}")).json
    assert explained["source"] == "hit"
    assert explained["run"]["upstream_id"] is explained["run"]["id"] is None
    assert made not in str(explained)
    assert (await people.ask(ALICE, "GET", f"/gateway/explain/{made}")).json["run"]["upstream_id"] == made


@pytest.mark.parametrize("name", ["bob", "x" * 300])
async def test_user_header_of_a_page_is_ignored(people: Callers, name: str):
    """What alice's page makes in bob's name is alice's, and only she sees it."""
    made = await people.predict(ALICE, headers={"Gateway-User": name})
    assert made.status == 201
    assert (await people.ask(BOB, "GET", "/v1/predictions")).json["results"] == []
    assert (await people.ask(ALICE, "GET", "/v1/predictions")).json["results"][0]["id"] == made.json["id"]
    assert (await people.ask(SERVER, "GET", f"/gateway/explain/{made.json['id']}")).json["user"] == "alice"


async def test_user_sees_what_its_server_makes_for_it(people: Callers):
    """A server names alice in Gateway-User; alice's page sees the prediction, bob's does not."""
    made = (await people.predict(SERVER, headers={"Gateway-User": "alice"})).json["id"]
    for who, status in ((ALICE, 200), (BOB, 404), (NOBODY, 404), (PAGE_KEY, 404)):
        assert (await people.ask(who, "GET", f"/v1/predictions/{made}")).status == status


async def test_idempotency_keys_of_pages_belong_to_their_owner(people: Callers):
    """Two users may send the same key; one user's tokens replay each other; the server's key is its own."""
    made = {}
    for who in EVERYBODY:
        reply = await people.predict(who, headers={"Idempotency-Key": "1"})
        assert reply.status == 201, reply.text
        made[who] = reply.json["id"]
    assert made[ALICE] == made[ALICE_AGAIN]
    assert len(set(made.values())) == len(EVERYBODY) - 1


@pytest.mark.parametrize("who", PUBLIC_CREDENTIALS)
async def test_page_has_no_webhooks_sent_unless_its_team_allows_it(open_gateway: OpenGateway, who: str):
    """A visitor does not make the gateway call addresses."""
    webhook = "https://receiver.example.com/hook"
    async with open_gateway(teams={"alpha": dict(TEAM)}) as stack:
        people = await callers(stack)
        assert_problem(await people.predict(who, webhook=webhook), 403)
        assert not stack.upstream.requests.count("*.create")
        assert (await people.predict(SERVER, webhook=webhook)).status == 201
    async with open_gateway(teams={"alpha": dict(TEAM) | {"public_webhooks": True}}, keys=stack.keys) as stack:
        assert (await (await callers(stack)).predict(who, webhook=webhook)).status == 201


async def test_team_can_let_its_tokens_see_everything(open_gateway: OpenGateway):
    """`public_sees = "team"` widens tokens, not publishable keys, and opens neither the secret nor usage."""
    async with open_gateway(teams={"alpha": dict(TEAM) | {"public_sees": "team"}}) as stack:
        people = await callers(stack)
        theirs = (await people.predict(SERVER)).json["id"]
        for who in (ALICE, NOBODY):
            assert (await people.ask(who, "GET", f"/v1/predictions/{theirs}")).status == 200
            listed = (await people.ask(who, "GET", "/v1/predictions")).json["results"]
            assert [each["id"] for each in listed] == [theirs]
            assert_problem(await people.ask(who, "GET", "/v1/webhooks/default/secret"), 403)
        assert (await people.ask(PAGE_KEY, "GET", f"/v1/predictions/{theirs}")).status == 404
        assert_problem(await people.ask(PAGE_KEY, "GET", "/v1/predictions"), 403)


async def test_renewed_token_keeps_its_predictions(people: Callers):
    """A page without a user keeps what it made when its server renews its token; a new token does not see it."""
    made = (await people.predict(NOBODY)).json["id"]
    renewed = await mint(people.stack, None, renew=people.keys[NOBODY])
    again = await mint(people.stack, None, renew=renewed)
    for token, status in ((renewed, 200), (again, 200), (people.keys[NOBODY_ELSE], 404)):
        reply = await ask(people.stack, "GET", f"/v1/predictions/{made}", key=token, headers={"Origin": PAGE})
        assert reply.status == status
    for wrong in ("rgt_x", people.keys[SERVER], people.keys[NOBODY][:-2]):
        body = {"ttl_seconds": 60, "scopes": TOKEN_SCOPES, "renew": wrong}
        assert_problem(await ask(people.stack, "POST", "/gateway/tokens", json=body), 422, origin=None)


async def test_publishable_key_with_more_scopes_sees_no_more(open_gateway: OpenGateway):
    """The scope account in a page would show every team to every visitor: it has no effect there."""
    team = dict(TEAM) | {"scopes": [*TEAM["scopes"], "account"], "keys": [{"name": "page", "origins": [PAGE]}]}
    async with open_gateway(teams={"alpha": team}) as stack:
        people = await callers(stack)
        theirs = (await people.predict(SERVER)).json["id"]
        assert (await people.ask(PAGE_KEY, "GET", f"/v1/predictions/{theirs}")).status == 404
        assert_problem(await people.ask(PAGE_KEY, "GET", "/v1/predictions"), 403)


async def test_owners_survive_a_restart(open_gateway: OpenGateway):
    """After a deploy a page still sees what it made, and nothing else."""
    async with open_gateway(teams={"alpha": dict(TEAM)}) as stack:
        people = await callers(stack)
        made = {who: (await people.predict(who)).json["id"] for who in EVERYBODY}
    async with open_gateway(teams={"alpha": dict(TEAM)}, keys=stack.keys) as stack:
        people = Callers(stack, people.keys)
        for who in PUBLIC_CREDENTIALS:
            for maker, prediction in made.items():
                status = 200 if maker in SAME_OWNER[who] else 404
                assert (await people.ask(who, "GET", f"/v1/predictions/{prediction}")).status == status
