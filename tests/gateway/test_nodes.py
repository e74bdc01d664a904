"""Several gateways on one PostgreSQL: what one leaves behind, the others go on with.

See docs/architecture.md, Nodes. Processes are killed and stopped in `tests/e2e/test_nodes.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import psycopg
import pytest

from gateway.nodes.membership import LeaseTimes
from gateway.simulator import Fault, Simulator
from gateway.store.postgres.locks import key_of
from tests.support.http_calls import metrics_of
from tests.support.nodes import few_at_a_time
from tests.support.polling import attempts, until
from tests.support.postgres import emptied_database
from tests.support.secret_scanner import LogScanner
from tests.support.session_calls import ask, create, finished, get, open_session, versioned_model
from tests.support.simulator_models import hold_runs
from tests.support.stack import OpenGateway, Stack
from tests.support.upstream import creates, version_of

CREATE = "predictions.create"
TIMES = LeaseTimes(lease=30.0, renew=0.3, margin=0.3, look=0.1)
"""A lease lasts long enough for a crowded machine; nodes are ended by the tests."""
SLOW = {"duration": 0}
"""The input of a run that ends as soon as it is no longer held."""
Open = Callable[[], Awaitable[tuple[Stack, Callable[[], Awaitable[None]]]]]


@pytest.fixture
def go_on(upstream: Simulator) -> asyncio.Event:
    """Runs of `acme/slow` do not end before this is set."""
    return hold_runs(upstream, "acme/slow")


@pytest.fixture
def url() -> str:
    return emptied_database()


@pytest.fixture
async def opened(open_gateway: OpenGateway, url: str) -> AsyncIterator[Open]:
    """Opens one more gateway on the same database; returns it, and what shuts it down."""
    keys: dict[str, str] = {}
    async with AsyncExitStack() as all_of_them:

        async def open_one() -> tuple[Stack, Callable[[], Awaitable[None]]]:
            one = AsyncExitStack()
            stack = await one.enter_async_context(open_gateway(store={"url": url}, keys=keys, lease_times=TIMES))
            keys.update(stack.keys)
            all_of_them.push_async_callback(one.aclose)
            return stack, one.aclose

        yield open_one


@asynccontextmanager
async def sessions(*stacks: Stack) -> AsyncIterator[list[aiohttp.ClientSession]]:
    async with AsyncExitStack() as closing:
        yield [await closing.enter_async_context(open_session(stack)) for stack in stacks]


async def nodes_of(stack: Stack, page: str = "") -> Any:
    async with aiohttp.ClientSession() as session, session.get(f"{stack.ops_url}/admin/nodes{page}") as response:
        return await response.json()


async def metric(stack: Stack, name: str) -> float:
    line = next(
        each for each in (await metrics_of(stack)).splitlines() if each.startswith(f"replicate_gateway_{name} ")
    )
    return float(line.split()[1])


async def end(url: str, stack: Stack) -> int:
    """End a node behind its back, as one that finds its lease expired does. Return its number."""
    number: int = (await nodes_of(stack))["this_node"]

    def do() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE nodes SET ended_at = 1 WHERE number = %s", [number])

    await asyncio.to_thread(do)
    return number


async def start_slow(session: aiohttp.ClientSession, stack: Stack, **headers: str) -> str:
    reply = await create(session, version_of(stack.upstream, "acme/slow"), SLOW, **headers)
    assert reply.status == 201
    return str(reply.json["id"])


async def until_taken(count: int, *stacks: Stack) -> None:
    """Wait until these nodes have taken over so many runs. One that has joined again takes its share."""
    async for _ in attempts():
        if sum([await metric(each, "runs_taken_over_total") for each in stacks]) >= count:
            return


async def test_nodes_are_listed_with_what_they_say_of_themselves(opened: Open):
    (one, _), (two, leave) = await opened(), await opened()
    async for _ in attempts():
        listed = await nodes_of(one)
        if [each["report"].get("leads") for each in listed["results"]] == [False, True]:
            break
    assert listed["this_node"] == listed["results"][1]["number"]
    assert all(each["alive"] and 0 < each["lease_seconds_left"] <= TIMES.lease for each in listed["results"])
    assert [await metric(each, "node_leads") for each in (one, two)] == [1, 0]
    assert await metric(one, "node_lease_age_seconds") < TIMES.lease
    await leave()
    assert [each["alive"] for each in (await nodes_of(one))["results"]] == [False, True]
    first = await nodes_of(one, "?limit=1")
    assert first["results"][0]["number"] == listed["results"][0]["number"]
    second = await nodes_of(one, "?" + first["next"].partition("?")[2])
    assert [each["number"] for each in second["results"]] == [listed["this_node"]]
    assert second["next"] is None
    assert "limit" in (await nodes_of(one, "?limit=1001"))["detail"]


async def test_node_that_shuts_down_leaves_its_runs_to_the_others(
    opened: Open, upstream: Simulator, go_on: asyncio.Event
):
    (one, leave), (two, _) = await opened(), await opened()
    async with sessions(one, two) as (first, second):
        made = await start_slow(first, one)
        waiting = asyncio.create_task(ask(second, "GET", f"/v1/predictions/{made}"))
        assert (await waiting).json["status"] in ("starting", "processing")
        await leave()
        await until_taken(1, two)
        go_on.set()
        assert (await finished(second, made))["status"] == "succeeded"
    assert creates(upstream) == 1


async def test_run_that_has_ended_before_its_identity_is_known_is_hit_on_another_node(
    opened: Open, upstream: Simulator
):
    """One node waits for the model's schema when another one, which has it, is asked for the same."""
    (one, _), (two, _) = await opened(), await opened()
    version = version_of(upstream, "acme/storyteller")
    upstream.faults.set(Fault("delay", operation="models.versions.get", seconds=60, times=1))
    async with sessions(one, two) as (first, second):
        assert (await create(first, version, Prefer="wait")).json["status"] == "succeeded"
        await until(lambda: upstream.requests.count("models.versions.get") == 1)
        equal = await create(second, version)
        upstream.faults.clear()
        assert equal.is_hit, equal.cache
        assert (await create(first, version)).is_hit
    assert creates(upstream) == 1


async def test_runs_are_shared_among_the_survivors(opened: Open, upstream: Simulator, go_on: asyncio.Event):
    (one, leave), (two, _), (three, _) = await opened(), await opened(), await opened()
    async with sessions(one, two, three) as (first, second, third):
        made = await few_at_a_time(start_slow(first, one) for _ in range(60))
        await leave()
        await until_taken(60, two, three)
        go_on.set()
        for session, ids in ((second, made[::2]), (third, made[1::2])):
            ends = await asyncio.gather(*(finished(session, each) for each in ids))
            assert {each["status"] for each in ends} == {"succeeded"}
    assert creates(upstream) == len(upstream.predictions) == 60


async def test_node_without_a_lease_drops_its_runs_and_joins_again(
    opened: Open, upstream: Simulator, url: str, log_scanner: LogScanner, go_on: asyncio.Event
):
    (one, _), (two, _) = await opened(), await opened()
    async with sessions(one, two) as (first, second):
        made = await start_slow(first, one)
        before = await end(url, one)
        async for _ in attempts():
            if (await nodes_of(one))["this_node"] > before:
                break
        assert await metric(one, "node_leases_lost_total") == 1
        await until_taken(1, one, two)
        go_on.set()
        for session in (first, second):
            assert (await finished(session, made))["status"] == "succeeded"
        again = await start_slow(first, one)
        assert (await finished(second, again))["status"] == "succeeded"
    assert creates(upstream) == 2
    log_scanner.errors.clear()


async def test_waiter_on_a_node_that_loses_the_run_gets_its_end(
    opened: Open, upstream: Simulator, url: str, log_scanner: LogScanner, go_on: asyncio.Event
):
    (one, _), (two, _) = await opened(), await opened()
    async with sessions(one, two) as (first, second):
        version = version_of(upstream, "acme/slow")
        waiting = asyncio.create_task(create(first, version, SLOW, Prefer="wait=60"))
        await until(lambda: creates(upstream) == 1)
        await end(url, one)
        await until_taken(1, one, two)
        go_on.set()
        reply = await waiting
        assert (reply.status, reply.json["status"]) == (201, "succeeded")
        assert (await get(second, reply.json["id"]))["status"] == "succeeded"
    log_scanner.errors.clear()


async def test_create_that_cannot_be_recorded_is_found_by_the_node_that_leads(
    opened: Open, upstream: Simulator, url: str, log_scanner: LogScanner
):
    """The node lost its lease while upstream answered: it records nothing, and the create is not sent again."""
    (one, _), (two, _) = await opened(), await opened()
    upstream.faults.set(Fault("delay_headers", operation="*" + CREATE, seconds=1.0, times=1))
    async with sessions(one, two) as (first, second):
        asked = asyncio.create_task(create(first, versioned_model(one), {"prompt": "a", "duration": 4.0}))
        await until(lambda: upstream.predictions)
        await end(url, one)
        reply = await asked
        assert reply.status == 201
        assert reply.json["id"] == upstream.predictions[0].id
        for session in (first, second):
            assert (await finished(session, reply.json["id"]))["status"] == "succeeded"
    assert creates(upstream) == len(upstream.predictions) == 1
    log_scanner.errors.clear()


async def test_uncertain_creates_of_all_nodes_are_found_by_the_node_that_leads(opened: Open, upstream: Simulator):
    (one, _), (two, _) = await opened(), await opened()
    upstream.faults.set(Fault("drop_after", operation="*" + CREATE, times=4))
    async with sessions(one, two) as (first, second):
        asked = [
            create(session, versioned_model(one), {"prompt": f"{place} {number}", "duration": 4.0})
            for place, session in enumerate((first, second))
            for number in range(2)
        ]
        replies = await asyncio.gather(*asked)
        assert [reply.status for reply in replies] == [201] * 4
        assert {reply.json["id"] for reply in replies} == {each.id for each in upstream.predictions}
        for reply in replies:
            assert (await finished(second, reply.json["id"]))["status"] == "succeeded"
    assert creates(upstream) == len(upstream.predictions) == 4


async def test_deadline_is_kept_by_the_node_that_takes_over(opened: Open, upstream: Simulator):
    (one, leave), (two, _) = await opened(), await opened()
    async with sessions(one, two) as (first, second):
        version = version_of(upstream, "acme/slow")
        headers = {"Cancel-After": "5s"}
        reply = await create(first, version, {"duration": 600}, **headers)
        await leave()
        assert (await finished(second, reply.json["id"]))["status"] in ("canceled", "aborted")


async def test_node_that_was_ended_is_not_ready_until_it_has_joined_again(
    opened: Open, url: str, log_scanner: LogScanner
):
    """It creates nothing meanwhile."""
    (one, _), _ = await opened(), await opened()
    async with sessions(one) as (first,), aiohttp.ClientSession() as operator:
        assert (await ask(first, "GET", "/readyz")).status == 200
        joining = await asyncio.to_thread(keep_nodes_from_joining, url)
        try:
            await end(url, one)
            async for _ in attempts():
                if (await ask(first, "GET", "/readyz")).status == 503:
                    break
            async with operator.get(f"{one.ops_url}/readyz") as response:
                assert "lease" in (await response.json())["checks"]["node"]
            assert (await create(first, versioned_model(one), {"prompt": "a"})).status == 503
        finally:
            await asyncio.to_thread(joining.close)
        async for _ in attempts():
            if (await ask(first, "GET", "/readyz")).status == 200:
                break
        assert (await create(first, versioned_model(one), {"prompt": "a"})).status == 201
    log_scanner.errors.clear()


def keep_nodes_from_joining(url: str) -> psycopg.Connection[Any]:
    connection = psycopg.connect(url, autocommit=True)
    connection.execute("SELECT pg_advisory_lock(%s)", [key_of("NODES", "")])
    return connection


async def test_run_that_a_node_has_taken_without_learning_of_it_is_followed(
    opened: Open, upstream: Simulator, url: str, log_scanner: LogScanner, go_on: asyncio.Event
):
    """The answer of the step that took it was lost: the run is owned, and no other node looks for it."""
    (one, leave), (two, _) = await opened(), await opened()
    async with sessions(one, two) as (first, second):
        made = await start_slow(first, one)
        number = (await nodes_of(two))["this_node"]

        def take() -> None:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute("UPDATE runs SET owner = %s", [number])

        await asyncio.to_thread(take)
        await leave()
        await until_taken(1, two)
        go_on.set()
        assert (await finished(second, made))["status"] == "succeeded"
    assert creates(upstream) == 1
    log_scanner.errors.clear()
