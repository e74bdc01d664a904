"""Nodes on one database: a request is answered on any of them as on the one that follows the run."""

import asyncio
import json
import secrets
import time
from functools import partial
from typing import Any

import aiohttp
import psycopg
import pytest
from aiohttp import web
from msgspec.structs import replace

from gateway.access.rules.api_keys import new_key
from gateway.domain import signing
from gateway.domain.limits import Allowance, Limits
from gateway.domain.records import Key
from gateway.simulator import Fault, Simulator
from gateway.store.urls import open_store
from tests.support.audit import BY_TEST
from tests.support.event_streams import output_texts, read_stream, read_stream_from_upstream, without_comments
from tests.support.http_calls import metrics_of, until_metric
from tests.support.nodes import at, few_at_a_time, open_nodes
from tests.support.polling import attempts, stable, until
from tests.support.postgres import emptied_database
from tests.support.rounds import amounts
from tests.support.secret_scanner import SecretScanner
from tests.support.session_calls import (
    CREATED,
    JOINED,
    STORY,
    TERMINAL,
    ask,
    cancel,
    create,
    finished,
    get,
    teach_version,
    versioned_model,
)
from tests.support.simulator_models import hold_runs
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import CREATES, creates, reads, version_of
from tests.support.webhook_receiver import start_receiver

LONG = STORY | {"duration": 3600.0}
MODEL = "acme/storyteller"
CREATED_TOTAL = "predictions_created_total{"
READS = 'upstream_requests_total{code="200",operation="predictions.get"}'


@pytest.fixture
def database() -> str:
    """The address of an empty database."""
    return emptied_database()


async def test_wait_on_one_node_ends_with_the_run_of_another(
    open_gateway: OpenGateway, upstream: Simulator, database: str
):
    go_on = hold_runs(upstream, MODEL)
    async with open_nodes(open_gateway, database) as nodes:
        (one, alpha), (two, beta) = nodes.of(0), nodes.of(1)
        await teach_version(alpha, MODEL, version_of(upstream, MODEL))
        first = await create(alpha, versioned_model(one))
        waiting = asyncio.create_task(create(beta, versioned_model(one), Prefer="wait=60"))
        await until_metric(two, 'replicate_gateway_waiters{kind="sync"} 1.0')
        go_on.set()
        waited = await waiting
        assert waited.cache == JOINED
        assert waited.json["status"] == "succeeded"
        assert creates(upstream) == 1
        # By the owner alone: the other node reads the store.
        assert await total(one, READS) > 0
        assert await total(two, READS) == 0
        assert (await get(alpha, waited.json["id"]))["status"] == "succeeded"
        assert (await get(beta, first.json["id"]))["output"] == waited.json["output"]


async def test_cancels_are_counted_over_nodes(open_gateway: OpenGateway, upstream: Simulator, database: str):
    """The run goes on for whoever waits for it on any node. The last cancel, on whatever node, ends it upstream."""
    async with open_nodes(open_gateway, database, 3) as nodes:
        one = nodes.stacks[0]
        ids = [
            (await create(session, versioned_model(one), LONG)).json["id"]
            for session in nodes.sessions
            for _ in range(2)
        ]
        assert creates(upstream) == 1
        for number, each in enumerate(ids[:-1]):
            assert (await cancel(nodes.sessions[(number + 1) % 3], each))["status"] == "canceled"
        assert upstream.requests.count("predictions.cancel") == 0
        assert upstream.predictions[0].status in ("starting", "processing")
        assert (await cancel(nodes.sessions[1], ids[-1]))["status"] == "canceled"
        await until(lambda: upstream.predictions[0].status == "canceled")
        assert upstream.requests.count("predictions.cancel") == 1
        for session in nodes.sessions:
            for each in ids:
                async for _ in attempts():
                    if (await get(session, each))["status"] == "canceled":
                        break


async def test_cancel_on_one_node_ends_the_wait_on_another(
    open_gateway: OpenGateway, upstream: Simulator, database: str
):
    async with open_nodes(open_gateway, database) as nodes:
        (one, alpha), (two, beta) = nodes.of(0), nodes.of(1)
        mine = (await create(alpha, versioned_model(one), LONG)).json["id"]
        theirs = (await create(beta, versioned_model(one), LONG)).json["id"]
        waiting = asyncio.create_task(create(beta, versioned_model(one), LONG, Prefer="wait=60", Idempotency_Key="w"))
        await until_metric(two, 'replicate_gateway_waiters{kind="sync"} 1.0')
        streams = [
            asyncio.create_task(read_stream(stack, at(stack, (await get(session, each))["urls"]["stream"])))
            for stack, session, each in ((nodes.stacks[1], alpha, mine), (nodes.stacks[0], beta, theirs))
        ]
        await until(lambda: upstream.requests.count("streams.get"))
        await cancel(beta, theirs)
        await cancel(alpha, mine)
        for each in streams:
            assert (await each).body.endswith(b'data: {"reason":"canceled"}\n\n')
        # Its id is known to nobody but the store yet.
        listed = (await ask(alpha, "GET", CREATED)).json["results"]
        (waited_for,) = {each["id"] for each in listed} - {mine, theirs}
        await cancel(alpha, waited_for)
        assert (await waiting).json["status"] == "canceled"


async def test_stream_is_the_same_on_every_node_with_one_connection_upstream(
    open_gateway: OpenGateway, upstream: Simulator, database: str
):
    go_on = hold_runs(upstream, MODEL, after=2)
    async with open_nodes(open_gateway, database, 3) as nodes:
        made = (await create(nodes.sessions[0], versioned_model(nodes.stacks[0]))).json
        url = made["urls"]["stream"]
        # The node that follows the run comes last: nobody reads its stream there before.
        reading = [asyncio.create_task(read_stream(stack, at(stack, url))) for stack in reversed(nodes.stacks)]
        for stack in nodes.stacks:
            await until_metric(stack, 'replicate_gateway_sse_streams{side="downstream"} 1.0')
        go_on.set()
        read = await asyncio.gather(*reading)
        expected = without_comments(await read_stream_from_upstream(nodes.stacks[0]))
        assert [without_comments(each.body) for each in read] == [expected] * 3
        result = await finished(nodes.sessions[2], made["id"])
        assert output_texts(read[0].body) == result["output"]
        assert sum(seen.operation == "streams.get" for seen in upstream.requests if seen.origin != "test") <= 2


async def test_stream_is_resumed_on_another_node(open_gateway: OpenGateway, upstream: Simulator, database: str):
    go_on = hold_runs(upstream, MODEL, after=2)
    async with open_nodes(open_gateway, database) as nodes:
        (one, alpha), (two, _) = nodes.of(0), nodes.of(1)
        made = (await create(alpha, versioned_model(one), STORY | {"max_tokens": 8})).json
        url = made["urls"]["stream"]
        head = b""
        async with aiohttp.ClientSession() as nobody, nobody.get(at(one, url)) as response:
            async for chunk in response.content.iter_any():
                head += chunk
                if head.count(b"event: output\n") >= 2 and head.endswith(b"\n\n"):
                    break
        last = [line[4:].decode() for line in head.split(b"\n") if line.startswith(b"id: ")][-1]
        reading = asyncio.create_task(read_stream(two, at(two, url), **{"Last-Event-ID": last}))
        await until_metric(two, 'replicate_gateway_sse_streams{side="downstream"} 1.0')
        go_on.set()
        rest = (await reading).body
        expected = without_comments(await read_stream_from_upstream(one))
        assert without_comments(head) + without_comments(rest) == expected


async def test_join_waits_for_the_create_of_another_node(open_gateway: OpenGateway, upstream: Simulator, database: str):
    upstream.faults.set(Fault("delay", operation=CREATES, seconds=60))
    async with open_nodes(open_gateway, database) as nodes:
        (one, alpha), (two, beta) = nodes.of(0), nodes.of(1)
        await teach_version(alpha, MODEL, version_of(upstream, MODEL))
        await teach_version(beta, MODEL, version_of(upstream, MODEL))
        first = asyncio.create_task(create(alpha, versioned_model(one)))
        await until(lambda: creates(upstream))
        joining = asyncio.create_task(create(beta, versioned_model(one)))
        await until_metric(two, 'replicate_gateway_waiters{kind="create"} 1.0')
        upstream.faults.clear()
        second = await joining
        assert (second.status, second.cache) == (201, JOINED)
        assert (await first).status == 201
        assert creates(upstream) == 1
        assert (await finished(beta, second.json["id"]))["status"] == "succeeded"


async def test_refused_create_is_refused_on_every_node(open_gateway: OpenGateway, upstream: Simulator, database: str):
    upstream.faults.set(Fault("delay", operation=CREATES, seconds=60))
    async with open_nodes(open_gateway, database) as nodes:
        (one, alpha), (two, beta) = nodes.of(0), nodes.of(1)
        await teach_version(alpha, MODEL, version_of(upstream, MODEL))
        bad = STORY | {"max_tokens": "many"}
        first = asyncio.create_task(create(alpha, versioned_model(one), bad))
        await until(lambda: creates(upstream))
        joining = asyncio.create_task(create(beta, versioned_model(one), bad))
        await until_metric(two, 'replicate_gateway_waiters{kind="create"} 1.0')
        upstream.faults.clear()
        second = await joining
        assert (second.status, second.json) == ((await first).status, (await first).json)
        assert second.status == 422
        assert creates(upstream) == 1


async def test_webhook_of_upstream_can_come_to_any_node(open_gateway: OpenGateway, upstream: Simulator, database: str):
    """It is news for the node that follows the run, which then asks upstream."""
    public = {"public_url": "https://gateway.example"}
    async with open_nodes(open_gateway, database, server=public) as nodes:
        (one, alpha), (two, _) = nodes.of(0), nodes.of(1)
        await create(alpha, versioned_model(one), LONG)
        (sent,) = [json.loads(seen.body) for seen in upstream.requests if seen.operation == "predictions.create"]
        before = await stable(lambda: reads(upstream), 0.25)
        body = json.dumps({"id": upstream.predictions[0].id, "status": "succeeded"}).encode()
        assert await tell_of(two, sent["webhook"], body) == 204
        await until(lambda: reads(upstream) > before)


async def test_room_under_a_limit_is_told_to_other_nodes(open_gateway: OpenGateway, upstream: Simulator, database: str):
    """A create waits on one node for the only place of its team, which a run on another node has."""
    teams = {"alpha": {"concurrent_predictions": 1}}
    async with open_nodes(open_gateway, database, teams=teams) as nodes:
        (one, alpha), (two, beta) = nodes.of(0), nodes.of(1)
        first = (await create(alpha, versioned_model(one), LONG)).json["id"]
        second = asyncio.create_task(create(beta, versioned_model(one), LONG | {"seed": 8}))
        await until_metric(two, 'replicate_gateway_waiters{kind="limit"} 1.0')
        await cancel(alpha, first)
        assert (await second).status == 201


async def test_waits_and_cancels_go_on_when_the_connections_for_news_are_cut(
    open_gateway: OpenGateway, upstream: Simulator, database: str
):
    """Until they are there again, nodes read the database."""
    async with open_nodes(open_gateway, database) as nodes:
        (one, alpha), (two, beta) = nodes.of(0), nodes.of(1)
        first = (await create(alpha, versioned_model(one), LONG)).json["id"]
        waiting = asyncio.create_task(create(beta, versioned_model(one), LONG, Prefer="wait=60"))
        await until_metric(two, 'replicate_gateway_waiters{kind="sync"} 1.0')
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            for _ in range(3):
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid() AND query ~ '^(LISTEN|SELECT 1$|SELECT pg_notify)'"
                )
                await cancel(beta, first)
        listed = (await ask(alpha, "GET", CREATED)).json["results"]
        (other,) = {each["id"] for each in listed} - {first}
        await cancel(alpha, other)
        assert (await waiting).json["status"] == "canceled"
        await until(lambda: upstream.predictions[0].status == "canceled")
        await until_metric(two, "replicate_gateway_news_listening 1.0")
        assert "replicate_gateway_news_reconnects_total 0.0" not in await metrics_of(two)


async def test_key_that_is_changed_or_revoked_anywhere_is_so_everywhere(
    open_gateway: OpenGateway, secret_scanner: SecretScanner, database: str
):
    async with open_nodes(open_gateway, database) as nodes:
        minted = new_key(secrets.token_bytes)
        secret_scanner.add("an issued key", minted.key)
        # As the command line does.
        store = await asyncio.to_thread(open_store, database)
        await store.open()
        try:
            issued = Key(id=minted.id, team="alpha", name="issued", sha256=minted.sha256, created_at=time.time())
            await store.add_key(issued, actor=BY_TEST)
            headers = {"Authorization": f"Bearer {minted.key}"}
            for session in nodes.sessions:
                assert (await ask(session, "GET", CREATED, headers=headers)).status == 200
            # Its limits hold on every node, and changes of them apply there.
            limit = Allowance(own=Limits(requests_per_minute=1, burst=1))
            for allowance, status in ((limit, 429), (None, 200)):
                change = partial(replace, allowance=allowance)
                await store.change_key(minted.id, None, change, time.time(), actor=BY_TEST)
                for session in nodes.sessions:
                    async for _ in attempts():
                        if (await ask(session, "GET", CREATED, headers=headers)).status == status:
                            break
            await store.revoke_key(minted.id, time.time(), actor=BY_TEST)
            for session in nodes.sessions:
                async for _ in attempts():
                    if (await ask(session, "GET", CREATED, headers=headers)).status == 401:
                        break
        finally:
            await store.close()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("crowd", amounts(300, 1000))
async def test_many_equal_callers_of_three_nodes_cost_upstream_one_run(
    open_gateway: OpenGateway, upstream: Simulator, database: str, crowd: int
):
    go_on = hold_runs(upstream, MODEL, after=2)
    async with open_nodes(open_gateway, database, 3) as nodes:
        version = versioned_model(nodes.stacks[0])
        crowded = asyncio.gather(
            *(_ended(nodes.sessions[number % 3], version, STORY, number) for number in range(crowd))
        )
        # Those that come later can be hits.
        async for _ in attempts():
            if sum([await total(stack, CREATED_TOTAL) for stack in nodes.stacks]) > crowd / 4:
                break
        go_on.set()
        bodies = await crowded
        assert creates(upstream) == 1
        # By the node that follows the run, at its own pace.
        assert [await total(stack, READS) > 0 for stack in nodes.stacks].count(True) == 1
        assert reads(upstream) < crowd / 2
        assert {body["status"] for body in bodies} == {"succeeded"}
        assert len({body["id"] for body in bodies}) == crowd
        assert len({str(body["output"]) for body in bodies}) == 1
        assert upstream.requests.count("streams.get") <= 1
        listed = (await ask(nodes.sessions[1], "GET", CREATED)).json
        assert len(listed["results"]) == 100


async def total(stack: Stack, start: str) -> float:
    """Return the sum of the metrics whose names and labels begin so."""
    lines = (await metrics_of(stack)).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"replicate_gateway_{start}"))


async def _ended(session: aiohttp.ClientSession, version: str, given: Any, number: int) -> Any:
    """Create a prediction and wait for its end: by waiting, by polls, or by its stream and a poll."""
    prefer = {"Prefer": "wait=60"} if number % 10 < 6 else {}
    reply = await create(session, version, given, **prefer)
    while reply.status == 503:
        # A busy machine may not record all of them in time.
        await asyncio.sleep(float(reply.headers["Retry-After"]))
        reply = await create(session, version, given, **prefer)
    assert reply.status in (201, 202), reply.text
    if number % 10 == 9:
        async with aiohttp.ClientSession() as nobody, nobody.get(reply.json["urls"]["stream"]) as response:
            assert (await response.text()).endswith("data: {}\n\n")
    body = reply.json
    while body["status"] not in TERMINAL:
        await asyncio.sleep(0.5)  # the clients' own pace
        body = await get(session, body["id"])
    return body


async def tell_of(stack: Stack, address: str, body: bytes) -> int:
    """Send a message to a node as upstream would."""
    timestamp = int(time.time())
    key = signing.key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signing.sign(key, "msg_1", timestamp, body),
        "Content-Type": "application/json",
    }
    url = address.replace("https://gateway.example", stack.origin)
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        return answer.status


async def test_progress_webhooks_are_sent_once_whichever_node_delivers_the_end(
    open_gateway: OpenGateway, upstream: Simulator, database: str
):
    """Only the node that follows a run knows which events it has sent."""
    allowed = {"allow_http": True, "allow_private_addresses": True}
    go_on = hold_runs(upstream, MODEL)
    async with start_receiver() as receiver, open_nodes(open_gateway, database, webhooks=allowed) as nodes:

        async def slow(_: web.Request) -> web.StreamResponse:
            # So the node has many messages to send, and the other one sends some of them.
            await asyncio.sleep(0.5)
            return web.Response(status=204)

        async def hooked(number: int) -> str:
            asked = {"prompt": str(number), "max_tokens": 4}
            more = {"webhook": receiver.url, "webhook_events_filter": ["start", "completed"]}
            version = version_of(upstream, MODEL)
            body = {"version": version, "input": asked} | more
            reply = await ask(nodes.sessions[0], "POST", "/v1/predictions", json=body)
            assert reply.status == 201
            return str(reply.json["id"])

        made = await few_at_a_time(hooked(number) for number in range(40))
        await receiver.count(40)
        receiver.answer = slow
        go_on.set()
        await receiver.until(lambda: all(set(TERMINAL) & set(receiver.statuses(each)) for each in made))
        twice = [receiver.statuses(each) for each in made if len(receiver.of(each)) != 2]
        assert not twice
