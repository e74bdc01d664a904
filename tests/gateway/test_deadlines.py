"""`Cancel-After` for each caller of a shared run (docs/architecture.md, Decisions 6)."""

import asyncio
from pathlib import Path

from gateway.domain import times
from gateway.simulator import Fault, Simulator
from tests.support.polling import attempts, holds, until
from tests.support.session_calls import STORY, create, finished, get, open_session, versioned_model
from tests.support.stack import Stack, start_gateway
from tests.support.system_clocks import AdvancingClock
from tests.support.upstream import creates

LONG = STORY | {"duration": 2400.0}


async def test_deadline_on_a_shared_run_ends_one_callers_prediction(upstream: Simulator, tmp_path: Path):
    """One caller's time is over, and its prediction says so; the other caller's goes on."""
    clock = AdvancingClock(upstream)
    async with start_gateway(upstream, tmp_path, clock=clock) as stack, open_session(stack) as alpha:
        stays = (await create(alpha, versioned_model(stack), LONG)).json
        leaves = (await create(alpha, versioned_model(stack), LONG, Cancel_After="1m")).json
        assert "deadline" not in stays
        assert round(times.parse(leaves["deadline"]) - times.parse(leaves["created_at"])) == 60
        async for _ in attempts():
            if (await get(alpha, leaves["id"]))["status"] == "processing":
                break
        clock.advance(59)
        assert (await get(alpha, leaves["id"]))["status"] == "processing"
        clock.advance(2)
        body = await finished(alpha, leaves["id"])
        assert (body["status"], body["output"]) == ("canceled", None)
        assert body["deadline"] == leaves["deadline"]
        assert (await get(alpha, stays["id"]))["status"] == "processing"
        assert upstream.requests.count("predictions.cancel") == 0
        assert creates(upstream) == 1
    # A run that others may join goes upstream without anybody's deadline.
    assert all("cancel-after" not in each.headers for each in upstream.requests.find("*predictions.create"))


async def test_deadline_before_the_start_aborts_and_after_it_cancels(upstream: Simulator, tmp_path: Path):
    """A cold boot takes all the time: `aborted`, which costs nothing. The last caller's deadline ends the run."""
    clock = AdvancingClock(upstream)
    upstream.faults.set(Fault("cold_boot", seconds=6000, times=1))
    async with start_gateway(upstream, tmp_path, clock=clock) as stack, open_session(stack) as alpha:
        cold = (await create(alpha, versioned_model(stack), LONG, Cancel_After="10m")).json
        joined = (await create(alpha, versioned_model(stack), LONG, Cancel_After="11m")).json
        warm = (await create(alpha, versioned_model(stack), LONG | {"seed": 8}, Cancel_After="10m")).json
        async for _ in attempts():
            if (await get(alpha, warm["id"]))["status"] == "processing":
                break
        clock.advance(601)
        assert (await finished(alpha, cold["id"]))["status"] == "aborted"
        assert (await get(alpha, joined["id"]))["status"] == "starting"
        assert upstream.predictions[0].status == "starting"
        clock.advance(60)
        ends = await asyncio.gather(*(finished(alpha, each["id"]) for each in (cold, joined, warm)))
        assert [end["status"] for end in ends] == ["aborted", "aborted", "canceled"]
        for asked, end in zip((cold, joined, warm), ends, strict=True):
            late = times.parse(end["completed_at"]) - times.parse(asked["deadline"])
            assert -0.01 <= late < 30
        await until(lambda: all(each.status == "canceled" for each in upstream.predictions))
    assert upstream.requests.count("predictions.cancel") == 2
    assert creates(upstream) == 2


async def test_deadline_after_the_end_changes_nothing(upstream: Simulator, tmp_path: Path):
    """The run has succeeded by then, and stays so."""
    clock = AdvancingClock(upstream)
    async with start_gateway(upstream, tmp_path, clock=clock) as stack, open_session(stack) as alpha:
        reply = await create(alpha, versioned_model(stack), STORY, Cancel_After="5", Prefer="wait")
        assert reply.json["status"] == "succeeded"
        hit = await create(alpha, versioned_model(stack), STORY, Cancel_After="5")
        assert hit.is_hit
        assert "deadline" in hit.json
        clock.advance(6)
        await holds(lambda: upstream.requests.count("predictions.cancel") == 0)
        for each in (reply, hit):
            body = await get(alpha, each.json["id"])
            assert body["status"] == "succeeded"
            assert body["output"] == reply.json["output"]
    assert upstream.requests.count("predictions.cancel") == 0


async def test_unshared_run_sends_its_deadline_upstream(gateway: Stack):
    """Without a seed the run has one caller, so upstream may enforce the deadline too."""
    async with open_session(gateway) as alpha:
        await create(alpha, versioned_model(gateway), {"prompt": "x", "duration": 1.0}, Cancel_After="90s")
    (seen,) = gateway.upstream.requests.find("*predictions.create")
    assert seen.headers["cancel-after"] == "90s"


async def test_deadline_during_downtime_applies_at_the_next_start(upstream: Simulator, tmp_path: Path):
    """The gateway was down when the time was over: the deadline is applied at the start, to that caller alone."""
    clock = AdvancingClock(upstream)
    async with start_gateway(upstream, tmp_path, clock=clock) as stack, open_session(stack) as alpha:
        stays = (await create(alpha, versioned_model(stack), LONG)).json["id"]
        leaves = (await create(alpha, versioned_model(stack), LONG, Cancel_After="30s")).json["id"]
        later = (await create(alpha, versioned_model(stack), LONG, Cancel_After="1h")).json["id"]
        async for _ in attempts():
            if (await get(alpha, leaves))["status"] == "processing":
                break
    clock.advance(31)
    async with start_gateway(upstream, tmp_path, clock=clock, keys=stack.keys) as stack, open_session(stack) as alpha:
        assert (await finished(alpha, leaves))["status"] == "canceled"
        for each in (stays, later):
            assert (await get(alpha, each))["status"] == "processing"
    assert upstream.requests.count("predictions.cancel") == 0
    assert creates(upstream) == 1
