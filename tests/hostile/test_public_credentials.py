"""What a page may see and do with what it is given: a browser token, a key bound to origins, or a token of an issuer.

Whoever reads a page's source has its credential. The table below says for every route what may be had with it; a route
that is not in the table fails. (docs/architecture.md, Access)
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from gateway.http.route import Route
from gateway.http.routes import OWN, PUBLIC
from tests.support.hostile import long_unless
from tests.support.http_calls import PAGE, Reply, ask, assert_problem
from tests.support.issuers import provider
from tests.support.public_callers import (
    ALICE,
    ALICE_AGAIN,
    BOB,
    NOBODY,
    NOBODY_ELSE,
    PAGE_KEY,
    PUBLIC_CREDENTIALS,
    SERVER,
    SIGNED_IN,
    TEAM,
    TOKEN_SCOPES,
    Callers,
    callers,
    mint,
)
from tests.support.samples import UNKNOWN_FILE, UNKNOWN_ID
from tests.support.stack import OpenGateway

ROUTES = {f"{route.method} {route.name}": route for route in (*PUBLIC, *OWN)}

OK, FORBIDDEN, OWN_ONLY, OWN_LIST, OPEN = "ok", "forbidden", "own only", "own list", "open"
OWN_OR_FORBIDDEN, OWN_MONEY = "own only, or forbidden", "own money only"

READS = (
    "account.get", "collections.list", "collections.get", "hardware.list", "search", "models.list", "models.get",
    "models.examples.list", "models.readme.get", "models.versions.list", "models.versions.get", "deployments.list",
    "deployments.get",
)  # fmt: skip
WRITES = (
    "POST models.create", "PATCH models.update", "DELETE models.delete", "DELETE models.versions.delete",
    "POST deployments.create", "PATCH deployments.update", "DELETE deployments.delete",
)  # fmt: skip
KEYS = (
    "GET gateway.keys.list", "POST gateway.keys.create", "PATCH gateway.keys.change", "DELETE gateway.keys.revoke",
    "POST gateway.keys.rotate",
)  # fmt: skip
OPENED = (
    "GET streams.read", "GET streams.read_files", "GET streams.check", "GET outputs.read",
    "POST upstream.webhooks", "GET healthz", "GET readyz", "GET openapi",
)  # fmt: skip

# Each row: with a token that names a user, with one that names none, with a publishable key, with an issuer's token.
EXPECTED: dict[str, tuple[str, str, str, str]] = {
    **{f"GET {name}": (OK, OK, OK, OK) for name in READS},
    "QUERY models.search": (OK, OK, OK, OK),
    # Their scopes (manage, deploy) are not given to pages here.
    **dict.fromkeys(WRITES, (FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN)),
    # The address is the permission, whoever asks.
    **dict.fromkeys(OPENED, (OPEN, OPEN, OPEN, OPEN)),
    "POST predictions.create": (OK, OK, OK, OK),
    "POST models.predictions.create": (OK, OK, OK, OK),
    "POST deployments.predictions.create": (OK, OK, OK, OK),
    "POST trainings.create": (OK, OK, OK, OK),
    "POST files.create": (OK, OK, OK, OK),
    # All visitors have the same publishable key, so it has no list.
    "GET predictions.list": (OWN_LIST, OWN_LIST, FORBIDDEN, OWN_LIST),
    "GET trainings.list": (OWN_LIST, OWN_LIST, FORBIDDEN, OWN_LIST),
    "GET files.list": (OWN_LIST, OWN_LIST, FORBIDDEN, OWN_LIST),
    "GET predictions.get": (OWN_ONLY, OWN_ONLY, OWN_ONLY, OWN_ONLY),
    "POST predictions.cancel": (OWN_ONLY, OWN_ONLY, OWN_ONLY, OWN_ONLY),
    "GET trainings.get": (OWN_ONLY, OWN_ONLY, OWN_ONLY, OWN_ONLY),
    "POST trainings.cancel": (OWN_ONLY, OWN_ONLY, OWN_ONLY, OWN_ONLY),
    "GET gateway.explain": (OWN_ONLY, OWN_ONLY, OWN_ONLY, OWN_ONLY),
    "GET files.get": (OWN_ONLY, OWN_ONLY, OWN_ONLY, OWN_ONLY),
    "DELETE files.delete": (OWN_ONLY, OWN_ONLY, OWN_OR_FORBIDDEN, OWN_ONLY),
    "GET files.download": (OWN_ONLY, OWN_ONLY, OWN_ONLY, OWN_ONLY),
    "GET webhooks.secret": (FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN),
    **dict.fromkeys(KEYS, (FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN)),
    "POST gateway.tokens": (FORBIDDEN, FORBIDDEN, FORBIDDEN, FORBIDDEN),
    "POST gateway.estimate": (OWN_MONEY, OWN_MONEY, OWN_MONEY, OWN_MONEY),
    "GET gateway.limits": (OWN_MONEY, OWN_MONEY, OWN_MONEY, OWN_MONEY),
    "GET gateway.usage": (OWN_MONEY, OWN_MONEY, OWN_MONEY, OWN_MONEY),
}


@pytest.fixture
async def people(open_gateway: OpenGateway) -> AsyncIterator[Callers]:
    """Everybody who has a credential of team alpha."""
    async with (
        provider() as issuer,
        open_gateway(teams={"alpha": dict(TEAM)}, issuers=[issuer.config(scopes=TOKEN_SCOPES)]) as stack,
    ):
        yield await callers(stack, issuer)


def rows() -> list[Any]:
    """Make a test of each route and credential. `make test` runs one credential where it does not matter who owns."""
    made = []
    for number, name in enumerate(sorted(ROUTES.keys() & EXPECTED.keys())):
        for place, who in enumerate((*PUBLIC_CREDENTIALS, SIGNED_IN)):
            matters = EXPECTED[name][place] not in (OK, FORBIDDEN, OPEN)
            if who == SIGNED_IN:
                # All others of its routes are tried with one gateway, below.
                marks = long_unless(EXPECTED[name][place] == OWN_LIST)
            else:
                marks = [] if matters else long_unless(number % len(PUBLIC_CREDENTIALS) == place)
            made.append(pytest.param(ROUTES[name], who, EXPECTED[name][place], id=f"{name}-{who}", marks=marks))
    return sorted(made, key=lambda row: str(row.id))


def test_every_route_says_what_a_page_may_do() -> None:
    """Whoever adds a route decides what a page may do with it."""
    assert ROUTES.keys() == EXPECTED.keys()


@pytest.mark.parametrize(("route", "who", "expected"), rows())
async def test_a_public_credential_gets_what_the_table_says(
    people: Callers, route: Route, who: str, expected: str
) -> None:
    """A page gets what is its user's (else its token's or key's), and learns nothing of anybody else."""
    await _gets(people, route, who, expected)


async def test_a_token_of_an_issuer_gets_what_the_table_says(people: Callers) -> None:
    """Whoever signed in elsewhere is a user like one for whom the team's server minted a token."""
    for name, (*_, expected) in EXPECTED.items():
        if expected != OWN_LIST:
            await _gets(people, ROUTES[name], SIGNED_IN, expected)


async def _gets(people: Callers, route: Route, who: str, expected: str) -> None:
    match expected:
        case "ok":
            reply = await people.route(who, route)
            assert reply.status < 300 or _is_missing_sample(route, reply), reply.text
        case "forbidden":
            assert_problem(await people.route(who, route), 403)
        case "open":
            if route.name != "streams.check" or who == PAGE_KEY:  # which takes its time
                with_it, without = await people.route(who, route), await people.route(SERVER, route)
                assert with_it.status == without.status
        case "own list":
            await _shows_only_its_own(people, route, who)
        case "own money only":
            await _shows_only_its_own_money(people, route, who)
        case _:
            await _reaches_only_its_own(people, route, who, may_be_forbidden=expected == OWN_OR_FORBIDDEN)


def _is_missing_sample(route: Route, reply: Reply) -> bool:
    """Whether upstream has no such model as the sample names: the question was let through, and is answered by 404."""
    return reply.status == 404 and route.name.startswith(("models.versions", "models.readme", "collections.get"))


OTHERS = (SERVER, BOB, NOBODY, PAGE_KEY)


async def _reaches_only_its_own(people: Callers, route: Route, who: str, *, may_be_forbidden: bool) -> None:
    others = [each for each in (*OTHERS, NOBODY_ELSE) if each != who]
    unknown = await people.route(who, route, id=UNKNOWN_ID, file_id=UNKNOWN_FILE)
    for other in others:
        theirs = await people.make_works(other)
        people.stack.upstream.requests.clear()
        reply = await people.route(who, route, **theirs.of(route))
        assert reply.settled == unknown.settled, f"of {other}: {reply.status} {reply.text[:200]}"
        assert not people.stack.upstream.requests.count("files.*")
        assert not people.stack.upstream.requests.count("*.cancel")
    mine = [who, ALICE_AGAIN] if who == ALICE else [who]
    for maker in mine:
        made = await people.make_works(maker)
        people.stack.upstream.requests.clear()
        reply = await people.route(who, route, **made.of(route))
        is_refused = may_be_forbidden and reply.status == 403
        was_asked = people.stack.upstream.requests.count("files.download")
        assert reply.status < 300 or is_refused or was_asked, f"of {maker}: {reply.text}"


async def _shows_only_its_own(people: Callers, route: Route, who: str) -> None:
    family = route.name.partition(".")[0]
    made = {each: await people.make_works(each) for each in {SERVER, ALICE, ALICE_AGAIN, BOB, NOBODY, NOBODY_ELSE, who}}
    mine = {ALICE, ALICE_AGAIN} if who == ALICE else {who}
    listed = {each["id"] for each in (await people.route(who, route)).json["results"]}
    ids = {each: getattr(works, family.removesuffix("s")) for each, works in made.items()}
    assert listed == {ids[each] for each in mine}


async def _shows_only_its_own_money(people: Callers, route: Route, who: str) -> None:
    for each in (SERVER, BOB, NOBODY_ELSE):
        assert (await people.run(each)).json["status"] == "succeeded"
    if route.name != "gateway.usage":
        reply = await people.route(who, route)
        assert reply.status == 200, reply.text
        shown = reply.json.get("gateway_limits", reply.json.get("limits"))
        money = [each for each in shown if each["name"].startswith(("budget_", "seconds_"))]
        assert {each["of"] for each in money} <= {"user", "address", "token"}
        return
    for by in ("day", "key", "model", "user"):
        reply = await people.ask(who, "GET", f"/gateway/usage?by={by}")
        if reply.status != 403:
            assert reply.json["total"]["predictions"]["run"] == 0
            assert "bob" not in reply.text


@pytest.mark.parametrize(("name", "value"), [("Gateway-User", "bob"), ("Gateway-Tags", "project=apollo")])
async def test_what_a_page_says_of_itself_does_not_count(people: Callers, name: str, value: str) -> None:
    """A page names neither its user nor tags: both come with the token."""
    for who in (ALICE, SIGNED_IN):
        made = await people.predict(who, headers={name: value})
        assert made.status == 201
        explained = (await people.ask(SERVER, "GET", f"/gateway/explain/{made.json['id']}")).text
        assert "apollo" not in explained
        assert "bob" not in explained


async def test_a_page_cannot_put_a_prediction_into_another_users_list(people: Callers) -> None:
    """What alice's page makes in bob's name is alice's."""
    made = await people.predict(ALICE, headers={"Gateway-User": "bob"})
    bobs = (await people.ask(BOB, "GET", "/v1/predictions")).json["results"]
    alices = (await people.ask(ALICE, "GET", "/v1/predictions")).json["results"]
    assert [each["id"] for each in bobs] == []
    assert [each["id"] for each in alices] == [made.json["id"]]


async def test_two_users_may_send_the_same_idempotency_key(people: Callers) -> None:
    """A key that another user has used is no replay of that user's prediction."""
    first = await people.predict(ALICE, headers={"Idempotency-Key": "1"})
    again = await people.predict(ALICE_AGAIN, headers={"Idempotency-Key": "1"})
    other = await people.predict(BOB, headers={"Idempotency-Key": "1"})
    assert first.json["id"] == again.json["id"]
    assert other.status == 201
    assert other.json["id"] != first.json["id"]


@pytest.mark.parametrize("who", [*PUBLIC_CREDENTIALS, SIGNED_IN])
async def test_a_page_may_have_no_webhooks_sent(people: Callers, who: str) -> None:
    """A visitor does not make the gateway call addresses, unless the team lets its pages do so."""
    reply = await people.predict(who, webhook="https://receiver.example.com/hook")
    assert reply.status in (403, 422)
    assert not people.stack.upstream.requests.count("*.create")


async def test_a_team_may_let_its_pages_have_webhooks_sent(open_gateway: OpenGateway) -> None:
    """`public_webhooks = true` says so."""
    async with open_gateway(teams={"alpha": dict(TEAM) | {"public_webhooks": True}}) as stack:
        people = await callers(stack)
        assert (await people.predict(ALICE, webhook="https://receiver.example.com/hook")).status == 201


async def test_a_refusal_does_not_tell_a_page_the_teams_amounts(open_gateway: OpenGateway) -> None:
    """Over the team's budget a page gets 402, and neither the budget nor what was spent of it."""
    async with open_gateway(teams={"alpha": dict(TEAM) | {"budget_usd_per_day": 0.000123}}) as stack:
        people = await callers(stack)
        refused = await people.predict(ALICE)
        assert_problem(refused, 402)
        assert "123" not in refused.text.replace(refused.headers["X-Request-Id"], "")
        assert "microusd" not in refused.text


async def test_a_team_may_let_its_users_see_each_other(open_gateway: OpenGateway) -> None:
    """`public_sees = "team"` widens what tokens see; a publishable key's view stays as narrow."""
    async with open_gateway(teams={"alpha": dict(TEAM) | {"public_sees": "team"}}) as stack:
        people = await callers(stack)
        theirs = (await people.predict(SERVER)).json["id"]
        assert (await people.ask(ALICE, "GET", f"/v1/predictions/{theirs}")).status == 200
        listed = (await people.ask(BOB, "GET", "/v1/predictions")).json["results"]
        assert theirs in [each["id"] for each in listed]
        assert (await people.ask(PAGE_KEY, "GET", f"/v1/predictions/{theirs}")).status == 404
        assert_problem(await people.ask(PAGE_KEY, "GET", "/v1/predictions"), 403)
        assert_problem(await people.ask(ALICE, "GET", "/v1/webhooks/default/secret"), 403)


async def test_a_renewed_token_keeps_its_predictions(people: Callers) -> None:
    """A token without a user is somebody, too: the server that renews it hands its predictions on."""
    made = (await people.predict(NOBODY)).json["id"]
    renewed = await mint(people.stack, None, renew=people.keys[NOBODY])
    headers = {"Origin": PAGE}
    assert (await ask(people.stack, "GET", f"/v1/predictions/{made}", key=renewed, headers=headers)).status == 200
    other = people.keys[NOBODY_ELSE]
    assert (await ask(people.stack, "GET", f"/v1/predictions/{made}", key=other, headers=headers)).status == 404
