"""Counted cancel: a caller ends its own prediction, the last one ends the run (docs/architecture.md, Invariants 4)."""

import asyncio
import random
from pathlib import Path

import aiohttp
import pytest

from gateway.domain import times
from gateway.simulator import Fault, Simulator
from tests.support.http_calls import until_metric
from tests.support.polling import attempts, holds, stable, until
from tests.support.session_calls import (
    JOINED,
    STORED,
    STORY,
    ask,
    cancel,
    create,
    finished,
    get,
    open_session,
    teach_version,
    versioned_model,
)
from tests.support.simulator_models import hold_runs
from tests.support.stack import Stack, start_gateway
from tests.support.upstream import creates, version_of

LONG = STORY | {"duration": 1200.0}


def cancels(upstream: Simulator) -> int:
    """Count how often upstream was asked to cancel."""
    return upstream.requests.count("predictions.cancel")


async def crowd(session: aiohttp.ClientSession, stack: Stack, size: int, **more: object) -> list[str]:
    """Make one run that so many callers wait for."""
    replies = await asyncio.gather(*(create(session, versioned_model(stack), LONG | more) for _ in range(size)))
    assert {reply.status for reply in replies} == {201}
    assert creates(stack.upstream) == 1
    return [reply.json["id"] for reply in replies]


async def test_run_ends_with_its_last_callers_cancel(gateway: Stack):
    """Nine of ten cancel: the run goes on for the tenth. When it cancels too, upstream gets one cancel."""
    async with open_session(gateway) as alpha:
        *leaving, last = await crowd(alpha, gateway, 10)
        for prediction in leaving:
            body = await cancel(alpha, prediction)
            assert (body["status"], body["output"]) == ("canceled", None)
            assert times.parse(body["completed_at"]) >= times.parse(body["created_at"])
            assert (await get(alpha, prediction))["status"] == "canceled"
        assert (await get(alpha, last))["status"] in ("starting", "processing")
        assert cancels(gateway.upstream) == 0
        assert gateway.upstream.predictions[0].status in ("starting", "processing")
        assert (await cancel(alpha, last))["status"] == "canceled"
        await until(lambda: gateway.upstream.predictions[0].status == "canceled")
        assert cancels(gateway.upstream) == 1
        # Again and again: nothing more comes of it.
        for prediction in (*leaving, last):
            assert (await cancel(alpha, prediction))["status"] == "canceled"
        await holds(lambda: cancels(gateway.upstream) == 1)


async def test_ten_concurrent_cancels_send_one_upstream_cancel(gateway: Stack):
    """All callers cancel at the same moment, twice."""
    async with open_session(gateway) as alpha:
        everybody = await crowd(alpha, gateway, 10)
        bodies = await asyncio.gather(*(cancel(alpha, each) for each in everybody * 2))
        assert {body["status"] for body in bodies} == {"canceled"}
        await until(lambda: gateway.upstream.predictions[0].status == "canceled")
        await holds(lambda: cancels(gateway.upstream) == 1)


async def test_first_caller_may_cancel_and_others_get_the_result(gateway: Stack):
    """The caller whose request created the run leaves; its id stays canceled, the others succeed."""
    go_on = hold_runs(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        run_creator = (await create(alpha, versioned_model(gateway))).json["id"]
        follower = asyncio.create_task(create(alpha, versioned_model(gateway), Prefer="wait"))
        async for _ in attempts():
            if len((await ask(alpha, "GET", "/v1/predictions")).json["results"]) >= 2:
                break
        assert (await cancel(alpha, run_creator))["status"] == "canceled"
        go_on.set()
        reply = await follower
        assert (reply.json["status"], reply.cache) == ("succeeded", JOINED)
        body = await get(alpha, run_creator)
        assert (body["status"], body["output"]) == ("canceled", None)
        listed = {each["id"]: each["status"] for each in (await ask(alpha, "GET", "/v1/predictions")).json["results"]}
        assert listed == {run_creator: "canceled", reply.json["id"]: "succeeded"}
        # The run has succeeded: the one who had left may ask again and is answered at once.
        assert (await create(alpha, versioned_model(gateway))).is_hit
    assert cancels(gateway.upstream) == 0


async def test_waiting_create_is_answered_by_its_own_cancel(gateway: Stack):
    """A caller's cancel ends its own wait and no other."""
    async with open_session(gateway) as alpha:
        await crowd(alpha, gateway, 1)
        waits = [asyncio.create_task(create(alpha, versioned_model(gateway), LONG, Prefer="wait")) for _ in range(2)]
        async for _ in attempts():
            if len(listed := (await ask(alpha, "GET", "/v1/predictions")).json["results"]) >= 3:
                break
        run_creator = gateway.upstream.predictions[0].id
        first = next(each["id"] for each in listed if each["id"] != run_creator)
        await cancel(alpha, first)
        done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        assert (len(done), len(pending)) == (1, 1)
        reply = done.pop().result()
        assert (reply.status, reply.json["id"], reply.json["status"]) == (201, first, "canceled")
        second = next(each["id"] for each in listed if each["id"] not in (run_creator, first))
        await cancel(alpha, second)
        assert (await pending.pop()).json["status"] == "canceled"
        assert cancels(gateway.upstream) == 0


async def test_cancel_ends_one_callers_stream_only(gateway: Stack):
    """The stream of the cancelled prediction ends with `done`, canceled; another caller's goes on to the end."""
    go_on = hold_runs(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as alpha:
        gone, stays = [(await create(alpha, versioned_model(gateway))).json for _ in range(2)]
        await cancel(alpha, gone["id"])
        async with (
            aiohttp.ClientSession() as nobody,
            nobody.get(gone["urls"]["stream"]) as response,
        ):
            assert 'data: {"reason":"canceled"}' in await response.text()
            async with nobody.get(stays["urls"]["stream"]) as other:
                go_on.set()
                assert (await other.text()).endswith("data: {}\n\n")


async def test_disconnects_cancel_no_run(gateway: Stack):
    """Every waiting caller disconnects: the run goes on and is a hit for the next caller."""
    go_on = hold_runs(gateway.upstream, "acme/storyteller")
    async with open_session(gateway) as leaving:
        waits = [asyncio.create_task(create(leaving, versioned_model(gateway), Prefer="wait")) for _ in range(5)]
        await until(lambda: gateway.upstream.predictions)
        await until_metric(gateway, 'waiters{kind="sync"} 5.0')
        for each in waits:
            each.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    go_on.set()
    await until(lambda: gateway.upstream.predictions[0].status == "succeeded")
    async with gateway.caller() as alpha:
        reply = await create(alpha, versioned_model(gateway), Prefer="wait")
        assert reply.json["status"] == "succeeded"
        listed = (await ask(alpha, "GET", "/v1/predictions")).json["results"]
        assert {(await finished(alpha, each["id"]))["status"] for each in listed} == {"succeeded"}
    assert (creates(gateway.upstream), cancels(gateway.upstream)) == (1, 0)


async def test_create_after_the_last_cancel_is_a_new_run(gateway: Stack):
    """A run that is being cancelled cannot be joined, even while upstream is slow to end it."""
    gateway.upstream.faults.set(Fault("cancel_late", seconds=60.0))
    async with open_session(gateway) as alpha:
        (only,) = await crowd(alpha, gateway, 1)
        await cancel(alpha, only)
        again = await create(alpha, versioned_model(gateway), LONG)
        assert again.cache == STORED
        assert (await get(alpha, again.json["id"]))["status"] in ("starting", "processing")
        assert (await get(alpha, only))["status"] == "canceled"
        third = await create(alpha, versioned_model(gateway), LONG)
        assert third.cache == JOINED
    assert creates(gateway.upstream) == 2


async def test_run_that_succeeds_despite_its_cancel_is_cached(gateway: Stack):
    """Upstream could not stop it: the caller who cancelled still sees canceled, the next one gets a hit."""
    go_on = hold_runs(gateway.upstream, "acme/storyteller")
    gateway.upstream.faults.set(Fault("cancel_race"))
    async with open_session(gateway) as alpha:
        only = (await create(alpha, versioned_model(gateway))).json["id"]
        await cancel(alpha, only)
        await until(lambda: cancels(gateway.upstream))
        go_on.set()
        await until(lambda: gateway.upstream.predictions[0].status == "succeeded")
        async for _ in attempts():
            if (reply := await create(alpha, versioned_model(gateway), Gateway_Cache="only-if-cached")).is_hit:
                break
        assert reply.json["status"] == "succeeded"
        body = await get(alpha, only)
        assert (body["status"], body["output"]) == ("canceled", None)
    assert creates(gateway.upstream) == 1


async def test_cancelled_run_is_never_shared(gateway: Stack):
    """A run that upstream ended early has no result."""
    async with open_session(gateway) as alpha:
        (only,) = await crowd(alpha, gateway, 1)
        await cancel(alpha, only)
        await until(lambda: gateway.upstream.predictions[0].status == "canceled")
        await stable(lambda: len(gateway.upstream.requests), 0.2)
        assert (await create(alpha, versioned_model(gateway), LONG, Gateway_Cache="only-if-cached")).status == 504
        assert (await create(alpha, versioned_model(gateway), LONG)).cache == STORED


@pytest.mark.parametrize("seed", range(3))
async def test_cancels_racing_with_the_end_give_each_caller_one_status(gateway: Stack, seed: int):
    """Some cancel just as the run ends: each prediction is canceled or succeeded, and stays so."""
    dice = random.Random(seed)
    given = STORY | {"duration": 4.0, "seed": seed}
    async with open_session(gateway) as alpha:
        ids = [
            each.json["id"]
            for each in await asyncio.gather(*(create(alpha, versioned_model(gateway), given) for _ in range(12)))
        ]

        async def leave(prediction: str) -> tuple[str, str]:
            # Around the time at which the run ends.
            await asyncio.sleep(0.15 + dice.random() * 0.25)
            return prediction, (await cancel(alpha, prediction))["status"]

        reported = dict(await asyncio.gather(*(leave(each) for each in ids[:10])))
        ends = {each: (await finished(alpha, each))["status"] for each in ids}
        for prediction, status in reported.items():
            if status in ("canceled", "succeeded"):
                assert ends[prediction] == status
        assert set(ends.values()) <= {"canceled", "succeeded"}
        assert {ends[each] for each in ids[10:]} == {"succeeded"}
    assert (creates(gateway.upstream), cancels(gateway.upstream)) == (1, 0)


async def test_cancel_of_another_teams_prediction_is_404_and_ignored(upstream: Simulator, tmp_path: Path):
    """With runs shared by all teams, another team's id is still unknown; each team's cancel counts for itself."""
    async with (
        start_gateway(upstream, tmp_path, cache={"share": "all"}) as stack,
        open_session(stack) as alpha,
        open_session(stack, "beta") as beta,
    ):
        mine = (await create(alpha, versioned_model(stack), LONG)).json["id"]
        theirs = (await create(beta, versioned_model(stack), LONG)).json["id"]
        assert creates(upstream) == 1
        for session, foreign in ((alpha, theirs), (beta, mine)):
            assert (await ask(session, "POST", f"/v1/predictions/{foreign}/cancel")).status == 404
            assert (await ask(session, "GET", f"/v1/predictions/{foreign}")).status == 404
        await cancel(alpha, mine)
        await holds(lambda: cancels(upstream) == 0)
        assert (await get(beta, theirs))["status"] in ("starting", "processing")
        await cancel(beta, theirs)
        await until(lambda: cancels(upstream) == 1)


async def test_cancels_survive_a_restart(upstream: Simulator, tmp_path: Path):
    """A caller who had cancelled before the restart stays cancelled; the last one's cancel afterwards ends the run."""
    async with start_gateway(upstream, tmp_path) as stack, open_session(stack) as alpha:
        first, second = await crowd(alpha, stack, 2)
        await cancel(alpha, first)
    async with start_gateway(upstream, tmp_path, keys=stack.keys) as stack, open_session(stack) as alpha:
        assert (await get(alpha, first))["status"] == "canceled"
        assert (await get(alpha, second))["status"] in ("starting", "processing")
        await cancel(alpha, second)
        await until(lambda: upstream.predictions[0].status == "canceled")
    assert cancels(upstream) == 1


async def test_failed_upstream_cancel_is_repeated_after_a_restart(upstream: Simulator, tmp_path: Path):
    """The last caller cancels while upstream's cancel fails, then the gateway restarts: the cancel is sent again."""
    async with start_gateway(upstream, tmp_path) as stack, open_session(stack) as alpha:
        (only,) = await crowd(alpha, stack, 1)
        upstream.faults.set(Fault("html_error", operation="predictions.cancel"))
        assert (await cancel(alpha, only))["status"] == "canceled"
        await until(lambda: cancels(upstream) >= 1)
    upstream.faults.clear()
    async with start_gateway(upstream, tmp_path, keys=stack.keys) as stack:
        await until(lambda: upstream.predictions[0].status == "canceled")


async def test_random_joins_and_cancels_serve_every_remaining_caller(gateway: Stack):
    """Whoever did not cancel is served, and no caller is served by a run that was ended."""
    dice = random.Random(4)
    given = STORY | {"duration": 12.0}
    async with open_session(gateway) as alpha:
        await teach_version(alpha, "acme/storyteller", version_of(gateway.upstream, "acme/storyteller"))

        async def one(leaves: bool) -> tuple[str, str]:
            # Callers come and leave at random times of a run that takes 0.6 s.
            await asyncio.sleep(dice.random() * 0.5)
            prediction = (await create(alpha, versioned_model(gateway), given)).json["id"]
            if leaves:
                await asyncio.sleep(dice.random() * 0.1)
                await cancel(alpha, prediction)
            return prediction, "left" if leaves else (await finished(alpha, prediction))["status"]

        ends = await asyncio.gather(*(one(number % 3 != 0) for number in range(45)))
        assert {end for _, end in ends} == {"left", "succeeded"}
        for prediction, end in ends:
            status = (await finished(alpha, prediction))["status"]
            assert status == "succeeded" if end == "succeeded" else status in ("canceled", "succeeded")
    runs = gateway.upstream.predictions
    assert cancels(gateway.upstream) == sum(run.status == "canceled" for run in runs)
    assert creates(gateway.upstream) <= 1 + cancels(gateway.upstream) + 1
