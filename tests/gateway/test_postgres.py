"""The whole gateway on PostgreSQL: creates, hits, joins, money, a restart. `test_nodes.py` has several of them."""

import asyncio

import pytest

from gateway.simulator import Simulator
from tests.support.pgbouncer import pooled
from tests.support.postgres import emptied_database
from tests.support.session_calls import (
    CREATED,
    JOINED,
    STORED,
    ask,
    create,
    get,
    open_session,
    teach_version,
    versioned_model,
)
from tests.support.stack import OpenGateway
from tests.support.upstream import creates, version_of


@pytest.fixture(params=["direct", "pgbouncer"])
def store(request: pytest.FixtureRequest) -> dict[str, str]:
    url = emptied_database()
    return {"url": url} if request.param == "direct" else {"url": pooled(url), "listen_url": url}


async def test_gateway_shares_charges_and_restarts_on_postgresql(
    open_gateway: OpenGateway, upstream: Simulator, store: dict[str, str]
):
    """Twenty callers are one run, charged once; after a restart every id resolves and the result is a hit."""
    async with open_gateway(store=store) as stack, open_session(stack) as alpha:
        await teach_version(alpha, "acme/storyteller", version_of(upstream, "acme/storyteller"))
        replies = await asyncio.gather(*(create(alpha, versioned_model(stack), Prefer="wait") for _ in range(20)))
        assert {(reply.status, reply.json["status"]) for reply in replies} == {(201, "succeeded")}
        # One that arrives when the run has ended is a hit.
        *others, own = sorted((str(reply.cache) for reply in replies), key=STORED.__eq__)
        assert own == STORED
        assert all(cache == JOINED or "; hit" in cache for cache in others)
        ids = {reply.json["id"] for reply in replies}
        assert len(ids) == 20
        usage = (await ask(alpha, "GET", "/gateway/usage")).json
        keys = stack.keys
    async with open_gateway(store=store, keys=keys) as stack, open_session(stack) as alpha:
        assert {(await get(alpha, each))["status"] for each in ids} == {"succeeded"}
        assert {each["id"] for each in (await ask(alpha, "GET", CREATED)).json["results"]} == ids
        assert (await ask(alpha, "GET", "/gateway/usage")).json == usage
        again = await create(alpha, versioned_model(stack), Prefer="wait")
        assert again.status == 201
        assert "; hit" in again.cache
    assert creates(upstream) == 1
