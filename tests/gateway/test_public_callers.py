"""What a web page can see and do with its browser token or publishable key: only what concerns its own user."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from gateway.http.routes import OWN, PUBLIC
from tests.support.http_calls import PAGE, assert_problem
from tests.support.public_callers import (
    ALICE,
    BOB,
    NOBODY,
    PAGE_KEY,
    PUBLIC_CREDENTIALS,
    SERVER,
    TEAM,
    Callers,
    callers,
)
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
        assert int(refused.headers["Retry-After"]) >= 1
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
