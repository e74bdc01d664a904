"""The webhook queue is bounded per team: what is accepted is delivered, and creates without a place wait or get 429."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from tests.support.http_calls import PAGE, Reply, ask, assert_problem, metrics_of
from tests.support.samples import create
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import creates, version_of
from tests.support.webhook_receiver import Receiver, never, start_receiver

QUEUE = {"allow_http": True, "allow_private_addresses": True, "max_queued": 3, "max_queued_public": 1}


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with start_receiver() as made:
        made.answer = never
        yield made


async def hooked(stack: Stack, receiver: Receiver, number: int, *, key: str = "alpha", **given: Any) -> Reply:
    """Create a run of its own with a webhook for its end."""
    body = {
        "version": version_of(stack.upstream, "acme/storyteller"),
        "input": {"prompt": str(number)},
        "webhook": f"{receiver.url}/{number}",
        "webhook_events_filter": ["completed"],
    }
    return await ask(stack, "POST", "/v1/predictions", key=key, json=body, **given)


async def test_team_without_a_place_gets_429_and_another_is_served(open_gateway: OpenGateway, receiver: Receiver):
    """The answer names the bound; nothing is sent upstream; creates without a webhook go on."""
    teams = {"alpha": {"max_wait_seconds": 0}, "beta": {}}
    async with open_gateway(webhooks=QUEUE, teams=teams) as stack:
        for number in range(3):
            assert (await hooked(stack, receiver, number)).status == 201
        sent = creates(stack.upstream)
        refused = await hooked(stack, receiver, 4)
        problem = assert_problem(refused, 429, origin=None)
        assert problem["limit"] | {"burst": None} == {
            "name": "max_queued",
            "of": "team",
            "limit": 3,
            "used": 3,
            "held": 0,
            "remaining": 0,
            "resets_at": None,
            "burst": None,
        }
        assert "webhook queue of your team has 3 places (max_queued)" in problem["detail"]
        assert refused.headers["Retry-After"] == "1"
        assert creates(stack.upstream) == sent
        assert (await create(stack, model="acme/storyteller", prompt="no webhook")).status == 201
        assert (await hooked(stack, receiver, 5, key="beta")).status == 201
        assert 'quota_refusals_total{reason="webhooks",team="alpha"} 1.0' in await metrics_of(stack)


async def test_create_is_held_until_a_place_is_free(open_gateway: OpenGateway, receiver: Receiver):
    """The receiver answers at last, and the create that waited gets a place and its own webhook."""
    opened = asyncio.Event()

    async def late(_: web.Request) -> web.StreamResponse:
        await opened.wait()
        return web.Response(status=204)

    receiver.answer = late
    async with open_gateway(webhooks=QUEUE, teams={"alpha": {"max_wait_seconds": 10}}) as stack:
        made = [await hooked(stack, receiver, number, headers={"Prefer": "wait=5"}) for number in range(3)]
        held = asyncio.create_task(hooked(stack, receiver, 4))
        while 'waiters{kind="limit"} 1.0' not in await metrics_of(stack):
            assert not held.done()
        assert "/4" not in {message.path for message in receiver.messages}
        opened.set()
        last = await held
        assert last.status == 201
        ids = {reply.json["id"] for reply in (*made, last)}
        await receiver.until(lambda: {f"msg_{each}" for each in ids} <= set(receiver.ids))


async def test_pages_have_fewer_places(open_gateway: OpenGateway, receiver: Receiver):
    """Those of a team's pages count together; its servers keep theirs."""
    teams = {"alpha": {"max_wait_seconds": 0, "public_webhooks": True}}
    async with open_gateway(webhooks=QUEUE, teams=teams) as stack:
        minted = await ask(stack, "POST", "/gateway/tokens", json={"user": "ann", "ttl_seconds": 60})
        token = minted.json["token"]
        page = {"Authorization": f"Bearer {token}", "Origin": PAGE}
        assert (await hooked(stack, receiver, 1, headers=page)).status == 201
        problem = assert_problem(await hooked(stack, receiver, 2, headers=page), 429)
        assert (problem["limit"]["name"], problem["limit"]["limit"]) == ("max_queued_public", 1)
        assert (await hooked(stack, receiver, 3)).status == 201
