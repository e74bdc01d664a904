"""From where a browser token may be used: the team's pages, unless it was minted for fewer."""

from tests.support.http_calls import PAGE, STRANGER, Reply, ask, assert_problem
from tests.support.stack import TEAM_SCOPES, OpenGateway, Stack


async def mint(stack: Stack, key: str = "alpha", **wanted: object) -> Reply:
    """Ask for a token."""
    return await ask(stack, "POST", "/gateway/tokens", key=key, json={"ttl_seconds": 60, **wanted})


async def use(stack: Stack, token: str, origin: str | None) -> int:
    """Use a token from a page, or from none; return the status."""
    headers = {"Origin": origin} if origin else {}
    return (await ask(stack, "GET", "/gateway/limits", key=token, headers=headers)).status


async def test_a_token_without_origins_is_bound_to_the_teams_pages(gateway: Stack) -> None:
    """What the docs say: it works on the listed pages, and neither elsewhere nor in curl."""
    minted = await mint(gateway, user="alice")
    assert minted.json["origins"] == [PAGE]
    token = minted.json["token"]
    assert await use(gateway, token, PAGE) == 200
    assert await use(gateway, token, STRANGER) == 403
    assert await use(gateway, token, None) == 403


async def test_an_empty_list_of_origins_is_refused(gateway: Stack) -> None:
    """A list of no pages would mean everywhere, or nowhere."""
    problem = assert_problem(await mint(gateway, origins=[]), 422, origin=None)
    assert [field["field"] for field in problem["invalid_fields"]] == ["origins"]


async def test_a_team_without_pages_has_to_say_from_where_its_tokens_are_used(gateway: Stack) -> None:
    """Left out, there is nothing to bind to: 422 says to add origins, or to pass null."""
    problem = assert_problem(await mint(gateway, key="beta"), 422, origin=None)
    assert [field["field"] for field in problem["invalid_fields"]] == ["origins"]
    assert_problem(await mint(gateway, key="beta", origins=None), 422, origin=None)


async def test_null_makes_an_unbound_token_where_the_team_allows_it(open_gateway: OpenGateway) -> None:
    """For native apps, which have no origin."""
    async with open_gateway(teams={"beta": {"scopes": TEAM_SCOPES, "unbound_tokens": True}}) as stack:
        minted = await mint(stack, key="beta", origins=None)
        assert minted.status == 201
        assert await use(stack, minted.json["token"], None) == 200
        assert_problem(await mint(stack, key="alpha", origins=None), 422, origin=None)


async def test_a_token_for_a_page_of_another_team_is_refused(gateway: Stack) -> None:
    """Origins narrow; they are not chosen freely."""
    problem = assert_problem(await mint(gateway, origins=[STRANGER]), 422, origin=None)
    assert [field["field"] for field in problem["invalid_fields"]] == ["origins"]


async def test_a_field_that_does_not_exist_is_named_by_its_beginning(gateway: Stack) -> None:
    """The answer to two megabytes is not one of twenty-four."""
    reply = await ask(gateway, "POST", "/gateway/tokens", json={"ttl_seconds": 60, "\x01" * 2_000_000: 1})
    assert_problem(reply, 422, origin=None)
    assert len(reply.body) < 10_000
