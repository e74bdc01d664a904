"""`Idempotency-Key`: a create that may be repeated safely, for a day, by its team.

See docs/architecture.md, Operations.
"""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.simulator import Fault, Simulator
from tests.support.polling import attempts, until
from tests.support.session_calls import (
    CREATED,
    JOINED,
    STORED,
    STORY,
    Reply,
    ask,
    cancel,
    create,
    finished,
    gateway_with_short_adoption_wait,
    open_session,
    versioned_model,
)
from tests.support.simulator_models import hold_runs
from tests.support.stack import Stack, start_gateway
from tests.support.system_clocks import AdvancingClock
from tests.support.upstream import creates

# Nothing that could be shared: only the key makes two of these one.
ANY = {"prompt": "whatever comes"}
DAY = 24 * 3600.0


async def keyed(session: aiohttp.ClientSession, stack: Stack, key: str, given: Any = None, **headers: str) -> Reply:
    """Create with a key."""
    return await create(
        session, versioned_model(stack), ANY if given is None else given, Idempotency_Key=key, **headers
    )


def is_replay(reply: Reply) -> bool:
    """Whether it is the first request's answer again."""
    return reply.headers.get("Idempotency-Replayed") == "true"


async def test_repeated_create_returns_the_first_prediction(gateway: Stack):
    """The same id, its newest state, a header that says so, and one run."""
    async with open_session(gateway) as alpha:
        first = await keyed(alpha, gateway, "order-1")
        assert (first.status, is_replay(first)) == (201, False)
        again = await keyed(alpha, gateway, "order-1")
        assert (again.status, is_replay(again)) == (201, True)
        assert again.json["id"] == first.json["id"]
        assert again.headers["Location"] == first.headers["Location"]
        waited = await keyed(alpha, gateway, "order-1", Prefer="wait")
        assert (waited.status, waited.json["status"], waited.json["id"]) == (201, "succeeded", first.json["id"])
        assert creates(gateway.upstream) == 1
        other = await keyed(alpha, gateway, "order-2")
        assert other.json["id"] != first.json["id"]
        assert not is_replay(other)
        assert len((await ask(alpha, "GET", CREATED)).json["results"]) == 2
    assert creates(gateway.upstream) == 2


async def test_replay_of_a_cancelled_prediction_is_cancelled(gateway: Stack):
    """The key stands for its prediction, whatever state that is in."""
    hold_runs(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        first = await keyed(alpha, gateway, "order-1")
        await cancel(alpha, first.json["id"])
        again = await keyed(alpha, gateway, "order-1")
        assert (again.json["status"], is_replay(again)) == ("canceled", True)
    assert creates(gateway.upstream) == 1


async def test_concurrent_create_with_the_same_key_is_409(gateway: Stack):
    """Twenty at once: one creates, the others get 409 with a time to retry; then all see the prediction."""
    gateway.upstream.faults.set(Fault("delay", operation="predictions.create", seconds=600))
    async with open_session(gateway) as alpha:
        creating = [asyncio.create_task(keyed(alpha, gateway, "order-1")) for _ in range(20)]
        await until(lambda: sum(task.done() for task in creating) == 19)
        gateway.upstream.faults.clear()
        replies = await asyncio.gather(*creating)
        assert sorted(reply.status for reply in replies) == [201] + 19 * [409]
        assert not any(is_replay(reply) for reply in replies)
        for reply in replies:
            if reply.status == 409:
                assert reply.headers["Retry-After"] == "1"
                assert reply.json["title"] == "Conflict"
        assert is_replay(await keyed(alpha, gateway, "order-1"))
    assert creates(gateway.upstream) == 1


@pytest.mark.parametrize("other", [{"prompt": "another"}, {"duration": 5.0}, {"seed": 1}], ids=str)
async def test_key_with_another_body_is_refused(gateway: Stack, other: dict[str, Any]):
    """Another input under the same key is a mistake: the error names it, and nothing is run."""
    async with open_session(gateway) as alpha:
        await keyed(alpha, gateway, "order-1")
        reply = await keyed(alpha, gateway, "order-1", ANY | other)
        assert reply.status == 422
        assert reply.json["invalid_fields"][0]["field"] == "Idempotency-Key"
        body = {"version": versioned_model(gateway), "input": ANY, "webhook": "https://example.com/hook"}
        assert (await ask(alpha, "POST", CREATED, json=body, headers={"Idempotency-Key": "order-1"})).status == 422
        path = "/v1/models/acme/official-storyteller/predictions"
        reply = await ask(alpha, "POST", path, json={"input": ANY}, headers={"Idempotency-Key": "order-1"})
        assert reply.status == 422
    assert creates(gateway.upstream) == 1


async def test_idempotency_keys_are_per_team(gateway: Stack):
    """Two teams use the same key: two runs, and neither sees the other's."""
    async with open_session(gateway) as alpha, open_session(gateway, "beta") as beta:
        mine = await keyed(alpha, gateway, "order-1")
        theirs = await keyed(beta, gateway, "order-1", {"prompt": "theirs"})
        assert (mine.status, theirs.status) == (201, 201)
        assert not is_replay(theirs)
        assert mine.json["id"] != theirs.json["id"]
        assert (await keyed(beta, gateway, "order-1", {"prompt": "theirs"})).json["id"] == theirs.json["id"]
    assert creates(gateway.upstream) == 2


async def test_key_survives_a_restart_and_expires_after_a_day(upstream: Simulator, tmp_path: Path):
    """A second before the day is over it is a replay, a second after it a new prediction."""
    clock = AdvancingClock(upstream)
    async with start_gateway(upstream, tmp_path, clock=clock) as stack, open_session(stack) as alpha:
        first = (await keyed(alpha, stack, "order-1")).json["id"]
        await finished(alpha, first)
    async with start_gateway(upstream, tmp_path, clock=clock, keys=stack.keys) as stack, open_session(stack) as alpha:
        again = await keyed(alpha, stack, "order-1")
        assert (again.json["id"], is_replay(again)) == (first, True)
        assert (await keyed(alpha, stack, "order-1", {"prompt": "x"})).status == 422
        clock.advance(DAY - 60)
        assert (await keyed(alpha, stack, "order-1")).json["id"] == first
        clock.advance(120)
        fresh = await keyed(alpha, stack, "order-1", {"prompt": "x"})
        assert (fresh.status, is_replay(fresh)) == (201, False)
    assert creates(upstream) == 2


@pytest.mark.parametrize("fault", ["insufficient_credit", "token_revoked"])
async def test_upstream_refusal_frees_the_key(gateway: Stack, fault: str):
    """Upstream created nothing, so the next attempt is the first."""
    gateway.upstream.faults.set(Fault(fault, operation="predictions.create", times=1))
    async with open_session(gateway) as alpha:
        refused = await keyed(alpha, gateway, "order-1")
        assert refused.status >= 400
        reply = await keyed(alpha, gateway, "order-1")
        assert (reply.status, is_replay(reply)) == (201, False)
    assert creates(gateway.upstream) == 2


async def test_create_refused_by_the_queue_frees_the_key(upstream: Simulator, tmp_path: Path):
    """Two 429s: the first attempt is over and does not conflict with the second."""
    teams = {"alpha": {"max_wait_seconds": 0}}
    async with start_gateway(upstream, tmp_path, teams=teams) as stack, open_session(stack) as alpha:
        upstream.faults.set(Fault("throttle", operation="predictions.create"))
        assert [(await keyed(alpha, stack, "order-1")).status for _ in range(2)] == [429, 429]
    assert creates(upstream) == 1


async def test_corrected_body_may_reuse_the_key_after_422(gateway: Stack):
    """An upstream 422 leaves nothing behind."""
    async with open_session(gateway) as alpha:
        assert (await keyed(alpha, gateway, "order-1", {"seed": "x"})).status == 422
        assert (await keyed(alpha, gateway, "order-1")).status == 201


async def test_key_on_a_shared_run_replays_its_own_prediction(gateway: Stack):
    """A hit and a join are remembered as such, so a repeat makes no second prediction."""
    go_on = hold_runs(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        run_creator = await keyed(alpha, gateway, "lead", STORY)
        joined = await keyed(alpha, gateway, "join", STORY)
        assert (run_creator.cache, joined.cache) == (STORED, JOINED)
        assert (await keyed(alpha, gateway, "join", STORY)).json["id"] == joined.json["id"]
        go_on.set()
        await finished(alpha, run_creator.json["id"])
        hit = await keyed(alpha, gateway, "hit", STORY)
        assert hit.is_hit
        for key, reply in (("lead", run_creator), ("join", joined), ("hit", hit)):
            again = await keyed(alpha, gateway, key, STORY)
            assert (again.json["id"], is_replay(again)) == (reply.json["id"], True)
        assert len((await ask(alpha, "GET", CREATED)).json["results"]) == 3
    assert creates(gateway.upstream) == 1


async def test_uncertain_create_holds_its_key_until_it_is_found(upstream: Simulator, tmp_path: Path):
    """504, then 409 during the search, then the prediction itself: never a second run."""
    async with gateway_with_short_adoption_wait(upstream, tmp_path) as stack, open_session(stack) as alpha:
        upstream.faults.set(
            Fault("drop_after", operation="predictions.create", times=1), Fault("error", operation="predictions.list")
        )
        assert (await keyed(alpha, stack, "order-1")).status == 504
        assert (await keyed(alpha, stack, "order-1")).status == 409
        upstream.faults.clear()
        async for _ in attempts():
            if (reply := await keyed(alpha, stack, "order-1")).status != 409:
                break
        assert (reply.status, is_replay(reply)) == (201, True)
        assert reply.json["id"] == upstream.predictions[0].id
    assert creates(upstream) == 1


async def test_key_left_by_a_crash_finds_its_run(upstream: Simulator, tmp_path: Path):
    """The gateway stopped between create and record; the caller's repeat gets the existing run."""
    server = {"shutdown_grace_seconds": 1}
    async with start_gateway(upstream, tmp_path, server=server) as stack, open_session(stack) as alpha:
        upstream.faults.set(Fault("delay_headers", operation="predictions.create", seconds=600))
        lost = asyncio.create_task(keyed(alpha, stack, "order-1"))
        await until(lambda: upstream.predictions)
    await asyncio.gather(lost, return_exceptions=True)
    upstream.faults.clear()
    async with start_gateway(upstream, tmp_path, keys=stack.keys) as stack, open_session(stack) as alpha:
        async for _ in attempts():
            if (reply := await keyed(alpha, stack, "order-1")).status != 409:
                break
        assert (reply.status, is_replay(reply)) == (201, True)
        assert reply.json["id"] == upstream.predictions[0].id
    assert creates(upstream) == 1


@pytest.mark.parametrize("key", ["x" * 256, "é"])
async def test_invalid_idempotency_key_is_refused(gateway: Stack, key: str):
    """A key has at most 255 printable ASCII characters."""
    async with open_session(gateway) as alpha:
        reply = await keyed(alpha, gateway, key)
        assert reply.status == 422
        assert reply.json["invalid_fields"][0]["field"] == "Idempotency-Key"
    assert creates(gateway.upstream) == 0
