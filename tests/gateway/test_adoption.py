"""Creates of which nobody knows whether upstream took them: found again, never sent again.

See docs/architecture.md, Invariants 8.
"""

import asyncio
from pathlib import Path

import aiohttp
import pytest

from gateway.simulator import Fault, Simulator
from tests.support.installation import install
from tests.support.polling import attempts, until
from tests.support.secret_scanner import LogScanner
from tests.support.session_calls import (
    CREATED,
    JOINED,
    STORED,
    STORY,
    ask,
    create,
    finished,
    gateway_with_short_adoption_wait,
    get,
    open_session,
    teach_version,
    versioned_model,
)
from tests.support.stack import Stack, start_gateway
from tests.support.system_clocks import AdvancingClock
from tests.support.upstream import creates, version_of

CREATE = "predictions.create"
UNSEEDED = {"prompt": "whatever comes", "duration": 4.0}
# What upstream may do with a create that it has taken.
TAKEN = {
    "a dropped connection": Fault("drop_after", operation="*" + CREATE, times=1),
    "an HTML page": Fault("html_error_after", operation="*" + CREATE, times=1),
    "an HTML page as 504": Fault("html_error_after", operation="*" + CREATE, status=504, times=1),
    "a truncated body": Fault("malformed_json", operation="*" + CREATE, times=1),
}


async def orphans(stack: Stack, result: str) -> float:
    """Read how many uncertain creates were settled so."""
    async with aiohttp.ClientSession() as session, session.get(f"{stack.ops_url}/metrics") as response:
        lines = (await response.text()).splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines
               if "orphan" in line and f'result="{result}"' in line and "_created" not in line)  # fmt: skip


@pytest.mark.parametrize("given", [STORY, UNSEEDED], ids=["shared", "alone"])
@pytest.mark.parametrize("fault", TAKEN.values(), ids=TAKEN)
async def test_create_with_a_lost_response_is_found_while_the_caller_waits(gateway: Stack, fault: Fault, given):
    """The caller notices nothing: 201, upstream's id, the output; upstream received one create."""
    gateway.upstream.faults.set(fault)
    async with open_session(gateway) as alpha:
        reply = await create(alpha, versioned_model(gateway), given, Prefer="wait")
        assert (reply.status, reply.json["status"]) == (201, "succeeded")
        assert reply.json["id"] == gateway.upstream.predictions[0].id
        assert (reply.cache == STORED) is (given is STORY)
        assert (await get(alpha, reply.json["id"]))["output"] == reply.json["output"]
        if given is STORY:
            assert (await create(alpha, versioned_model(gateway), given)).is_hit
        assert await orphans(gateway, "adopted") == 1
    assert creates(gateway.upstream) == len(gateway.upstream.predictions) == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/models/acme/official-storyteller/predictions", {}),
        ("/v1/deployments/acme/story-service/predictions", {}),
        ("/v1/predictions", {"version": "acme/official-storyteller"}),
    ],
    ids=["official", "deployment", "by name"],
)
async def test_lost_create_is_found_for_every_kind_of_target(gateway: Stack, path: str, body: dict[str, str]):
    """Official models hide their version, deployments show one: both are recognised in upstream's list."""
    gateway.upstream.faults.set(Fault("drop_after", operation="*" + CREATE, times=1))
    async with open_session(gateway) as alpha:
        reply = await ask(alpha, "POST", path, json=body | {"input": STORY}, headers={"Prefer": "wait"})
        assert (reply.status, reply.json["status"]) == (201, "succeeded")
    assert creates(gateway.upstream) == 1


async def test_joined_callers_of_an_uncertain_create_get_the_run_that_is_found(gateway: Stack):
    """Twenty callers wait for one create whose response is lost: twenty ids on the run that is found."""
    upstream = gateway.upstream
    upstream.faults.set(Fault("drop_after", operation=CREATE, times=1))
    async with open_session(gateway) as alpha:
        await teach_version(alpha, "acme/storyteller", version_of(upstream, "acme/storyteller"))
        replies = await asyncio.gather(*(create(alpha, versioned_model(gateway), Prefer="wait") for _ in range(20)))
        assert {(reply.status, reply.json["status"]) for reply in replies} == {(201, "succeeded")}
        assert len({reply.json["id"] for reply in replies}) == 20
        assert sum(reply.cache == JOINED for reply in replies) == 19
    assert creates(upstream) == 1


async def test_burst_by_bare_version_id_with_a_lost_response_is_one_run_on_a_cold_gateway(gateway: Stack):
    """The id names no model; the run that is found names it, and there is still only one run."""
    upstream = gateway.upstream
    upstream.faults.set(Fault("drop_after", operation=CREATE, times=1))
    async with open_session(gateway) as alpha:
        version = version_of(upstream, "acme/storyteller")
        replies = await asyncio.gather(*(create(alpha, version, Prefer="wait") for _ in range(20)))
        assert {(reply.status, reply.json["status"]) for reply in replies} == {(201, "succeeded")}
        assert len({reply.json["id"] for reply in replies}) == 20
        assert creates(upstream) == 1
        assert (await create(alpha, version)).is_hit
    assert creates(upstream) == 1


async def test_two_equal_uncertain_creates_find_one_run_each(gateway: Stack):
    """Without a seed there are two runs; both responses are lost, each run is found once, and none is shared by
    accident.
    """
    upstream = gateway.upstream
    upstream.faults.set(Fault("drop_after", operation=CREATE, times=4))
    async with open_session(gateway) as alpha:
        replies = await asyncio.gather(*(create(alpha, versioned_model(gateway), UNSEEDED) for _ in range(4)))
        assert {reply.status for reply in replies} == {201}
        assert {reply.json["id"] for reply in replies} == {each.id for each in upstream.predictions}
        assert len(upstream.predictions) == 4
        assert await orphans(gateway, "adopted") == 4
    assert creates(upstream) == 4


async def test_search_for_a_lost_create_does_not_take_another_requests_run(gateway: Stack):
    """An equal run that another request owns, and one that is too old, are not taken."""
    upstream = gateway.upstream
    async with open_session(gateway) as alpha, open_session(gateway, "beta") as beta:
        taken = [(await create(beta, versioned_model(gateway), UNSEEDED)).json["id"] for _ in range(3)]
        upstream.faults.set(Fault("drop_after", operation=CREATE, times=1))
        lost, *others = await asyncio.gather(
            create(alpha, versioned_model(gateway), UNSEEDED),
            *(create(beta, versioned_model(gateway), UNSEEDED) for _ in range(3)),
        )
        ids = [*taken, lost.json["id"], *(each.json["id"] for each in others)]
        assert sorted(ids) == sorted(each.id for each in upstream.predictions)
        assert (await ask(beta, "GET", f"{CREATED}/{lost.json['id']}")).status == 404


async def test_create_that_is_not_found_in_time_gets_504_with_a_next_step(upstream: Simulator, tmp_path: Path):
    """Upstream is in trouble: the caller learns that the run may exist. When upstream recovers, the run is adopted."""
    async with gateway_with_short_adoption_wait(upstream, tmp_path) as stack, open_session(stack) as alpha:
        upstream.faults.set(
            Fault("drop_after", operation=CREATE, times=1), Fault("html_error", operation="predictions.list")
        )
        reply = await create(alpha, versioned_model(stack), UNSEEDED, Prefer="wait")
        assert reply.status == 504
        assert "Idempotency-Key" in reply.json["detail"]
        assert "may be running" in reply.json["detail"]
        # The clients that heed it would send the create again (docs/replicate-api.md, Client retries).
        assert reply.headers["X-Should-Retry"] == "false"
        assert (await ask(alpha, "GET", CREATED)).json["results"] == []
        upstream.faults.clear()
        async for _ in attempts():
            if listed := (await ask(alpha, "GET", CREATED)).json["results"]:
                break
        assert [each["id"] for each in listed] == [upstream.predictions[0].id]
        assert (await finished(alpha, listed[0]["id"]))["status"] == "succeeded"
    assert creates(upstream) == 1


async def test_repeat_of_an_uncertain_create_joins_the_search(upstream: Simulator, tmp_path: Path):
    """A deterministic request repeated after the 504 waits for the same run and makes no second one."""
    async with gateway_with_short_adoption_wait(upstream, tmp_path) as stack, open_session(stack) as alpha:
        upstream.faults.set(
            Fault("drop_after", operation=CREATE, times=1), Fault("error", operation="predictions.list", times=3)
        )
        assert (await create(alpha, versioned_model(stack))).status == 504
        async for _ in attempts():
            if (reply := await create(alpha, versioned_model(stack), Prefer="wait")).status != 504:
                break
        assert (reply.status, reply.json["status"]) == (201, "succeeded")
    assert creates(upstream) == 1


async def test_search_ends_after_ten_minutes_when_upstream_has_no_run(
    upstream: Simulator, tmp_path: Path, log_scanner: LogScanner
):
    """There is nothing to find: the search ends, is counted, and the request can be made again."""
    clock = AdvancingClock(upstream)
    async with gateway_with_short_adoption_wait(upstream, tmp_path, clock) as stack, open_session(stack) as alpha:
        upstream.faults.set(Fault("html_error", operation=CREATE, times=1))
        reply = await create(alpha, versioned_model(stack), Idempotency_Key="order-1")
        assert reply.status == 504
        clock.advance(560)
        # Time in which it could be released too early.
        await asyncio.sleep(0.2)
        assert await orphans(stack, "released") == 0
        assert (await create(alpha, versioned_model(stack), Idempotency_Key="order-1")).status == 409
        assert creates(upstream) == 1
        clock.advance(60)
        async for _ in attempts():
            if await orphans(stack, "released"):
                break
            clock.advance(15)
        fresh = await create(alpha, versioned_model(stack), Idempotency_Key="order-1", Prefer="wait")
        assert (fresh.status, fresh.json["status"], fresh.cache) == (201, "succeeded", STORED)
        assert "Idempotency-Replayed" not in fresh.headers
        # It is logged for operators: a reservation depended on it.
        assert all("never found upstream" in each for each in log_scanner.errors)
        assert log_scanner.errors
        log_scanner.errors.clear()
    assert creates(upstream) == 2
    assert len(upstream.predictions) == 1


async def test_older_equal_run_of_the_account_is_not_adopted(upstream: Simulator, tmp_path: Path):
    """Someone ran the same on the web site a minute ago. That run never becomes a caller's prediction."""
    clock = AdvancingClock(upstream)
    async with gateway_with_short_adoption_wait(upstream, tmp_path, clock) as stack, open_session(stack) as alpha:
        body = {"version": version_of(upstream, "acme/storyteller"), "input": UNSEEDED}
        owner = {"Authorization": f"Bearer {upstream.token}"}
        async with aiohttp.ClientSession() as direct:
            reply = await ask(direct, "POST", f"{upstream.base_url}/predictions", json=body, headers=owner)
        assert reply.status == 201
        clock.advance(60)
        upstream.faults.set(Fault("html_error", operation=CREATE, times=1))
        assert (await create(alpha, versioned_model(stack), UNSEEDED)).status == 504
        assert (await ask(alpha, "GET", CREATED)).json["results"] == []
        assert await orphans(stack, "adopted") == 0


async def test_create_interrupted_by_a_shutdown_is_found_at_the_next_start(upstream: Simulator, tmp_path: Path):
    """The response was still to come; after the restart the team sees the run."""
    async with (
        start_gateway(upstream, tmp_path, server={"shutdown_grace_seconds": 1}) as stack,
        open_session(stack) as alpha,
    ):
        upstream.faults.set(Fault("delay_headers", operation=CREATE, seconds=600))
        lost = [asyncio.create_task(create(alpha, versioned_model(stack), given)) for given in (STORY, UNSEEDED)]
        await until(lambda: len(upstream.predictions) == 2)
    await asyncio.gather(*lost, return_exceptions=True)
    upstream.faults.clear()
    async with (
        start_gateway(upstream, tmp_path, keys=stack.keys) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        async for _ in attempts():
            if len(listed := (await ask(alpha, "GET", CREATED)).json["results"]) >= 2:
                break
        assert {each["id"] for each in listed} == {each.id for each in upstream.predictions}
        for each in listed:
            assert (await finished(alpha, each["id"]))["status"] == "succeeded"
            assert (await ask(beta, "GET", f"{CREATED}/{each['id']}")).status == 404
        assert (await create(alpha, versioned_model(stack))).is_hit
        assert await orphans(stack, "adopted") == 2
    assert creates(upstream) == 2


async def test_kill_9_between_create_and_record_loses_no_run(upstream: Simulator, tmp_path: Path):
    """The process dies while upstream's response is on its way: the next process finds each run once and creates
    none.
    """
    installed = install(upstream, tmp_path, ["alpha"])
    version = f"acme/storyteller:{version_of(upstream, 'acme/storyteller')}"
    given = [STORY, UNSEEDED, UNSEEDED, STORY | {"seed": 8}]
    async with installed.serving() as process, installed.caller("alpha") as alpha:
        upstream.faults.set(Fault("delay_headers", operation=CREATE, seconds=600))
        lost = [asyncio.create_task(create(alpha, version, each)) for each in given]
        await until(lambda: len(upstream.predictions) == len(given))
        process.kill()
        await asyncio.gather(*lost, return_exceptions=True)
    upstream.faults.clear()
    async with installed.serving(), installed.caller("alpha") as alpha:
        # Asked again before it is found, the request waits for its run.
        reply = await create(alpha, version, Prefer="wait")
        assert (reply.status, reply.json["status"]) == (201, "succeeded")
        async for _ in attempts():
            if len(listed := (await ask(alpha, "GET", CREATED)).json["results"]) >= len(given) + 1:
                break
        found = {each["id"] for each in listed} - {reply.json["id"]}
        assert found == {each.id for each in upstream.predictions}
    assert creates(upstream) == len(given)
