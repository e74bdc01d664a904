"""Creates that wait for a limit: headers, log and explanation say so. None waits that cannot succeed."""

import asyncio
import re
from collections.abc import Awaitable
from typing import Any

import pytest

from tests.support.access_log import AccessLog, create_story
from tests.support.clock import ManualClock
from tests.support.http_calls import Reply, ask, assert_problem, until_metric
from tests.support.polling import attempts, until
from tests.support.stack import OpenGateway, Stack
from tests.support.system_clocks import PausedClock
from tests.support.upstream import creates

HELD = re.compile(r'held;dur=(\d+\.\d);desc="([a-z-]+)", gateway;dur=(\d+\.\d)')
TWICE_A_SECOND = {"burst": 1, "max_wait_seconds": 10}


def held_of(reply: Reply) -> tuple[float, str, float]:
    """Return the milliseconds that a create was held, by which limit, and those of the gateway's own work."""
    found = HELD.match(reply.headers["Server-Timing"])
    assert found is not None, reply.headers["Server-Timing"]
    return float(found[1]), found[2], float(found[3])


async def explained(stack: Stack, reply: Reply, clock: ManualClock) -> dict[str, Any]:
    # Only creates are held.
    await clock.advance(1)
    explanation: dict[str, Any] = (await ask(stack, "GET", f"/gateway/explain/{reply.json['id']}")).json
    return explanation


async def held_until(stack: Stack, kind: str, clock: ManualClock, request: Awaitable[Reply]) -> Reply:
    """Send a create that is held; let time go on, half a second and then as the run needs it."""
    sending = asyncio.ensure_future(request)
    await until_metric(stack, f'waiters{{kind="{kind}"}} 1.0')
    await clock.advance(0.5)
    async for _ in attempts():
        if sending.done():
            break
        await clock.advance(0.1)
    return await sending


@pytest.mark.parametrize(
    ("name", "kind"), [("predictions_per_minute", "limit"), ("requests_per_minute", "rate")], ids=["runs", "requests"]
)
async def test_hold_is_visible(open_gateway: OpenGateway, access_log: AccessLog, name: str, kind: str):
    """How long and for which limit. The gateway's own time and the run's are counted apart from it."""
    label = f"team-{name}".replace("_", "-")
    clock = ManualClock()
    async with open_gateway(teams={"alpha": TWICE_A_SECOND | {name: 120}}, clock=clock) as stack:
        first = await create_story(stack)
        access_log.lines.clear()
        began = clock.monotonic()
        second = await held_until(stack, kind, clock, create_story(stack, wait=True))
        total = (clock.monotonic() - began) * 1000
        assert (first.status, second.status) == (201, 201)
        assert "held" not in first.headers["Server-Timing"]
        held, by, own = held_of(second)
        assert (held, by) == (500, label)
        run = float(second.headers["Server-Timing"].partition("run;dur=")[2].partition(",")[0])
        assert run > 0
        assert held + run + own <= total + 0.1
        line = access_log.of("predictions.create")
        assert (line["held_seconds"], line["held_by"]) == (pytest.approx(held / 1000, abs=0.001), label)
        limits = (await explained(stack, second, clock))["limits"]
        assert limits["waited_seconds"] == pytest.approx(held / 1000, abs=0.002)
        assert limits["waited_for"] == {"name": name, "of": "team", "limit": 120}


async def test_hold_of_a_hit_is_explained(open_gateway: OpenGateway):
    """It has no reservation, and its wait is kept all the same."""
    clock = ManualClock()
    async with open_gateway(teams={"alpha": TWICE_A_SECOND | {"requests_per_minute": 120}}, clock=clock) as stack:
        first = asyncio.create_task(create_story(stack, seed=1, wait=True))
        await until_metric(stack, 'waiters{kind="sync"} 1.0')
        await until(lambda: stack.upstream.predictions[0].completed_us is not None)
        await clock.advance(0.4)
        assert (await first).json["status"] == "succeeded"
        hit = await held_until(stack, "rate", clock, create_story(stack, seed=1))
        assert "hit" in hit.headers["Cache-Status"]
        answer = await explained(stack, hit, clock)
        assert answer["source"] == "hit"
        assert answer["limits"]["waited_for"]["name"] == "requests_per_minute"
        assert {"waited", "hit"} <= {each["what"] for each in answer["timeline"]}


async def test_wait_for_the_account_is_visible(open_gateway: OpenGateway, access_log: AccessLog):
    """The account's rate counts like a team's."""
    clock, account = ManualClock(), {"creates_per_minute": 120}
    async with open_gateway(upstream=account, teams={"alpha": {"max_wait_seconds": 10}}, clock=clock) as stack:
        making = [asyncio.create_task(create_story(stack)) for _ in range(22)]
        await until_metric(stack, 'waiters{kind="account"} 2.0')
        await clock.advance(1)
        made = await asyncio.gather(*making)
        assert {reply.status for reply in made} == {201}
        held = [reply for reply in made if "held" in reply.headers["Server-Timing"]]
        assert sorted(held_of(reply)[0] for reply in held) == [500, 1000]
        assert {held_of(reply)[1] for reply in held} == {"account-creates-per-minute"}
        longest = max(held, key=lambda reply: held_of(reply)[0])
        limits = (await explained(stack, longest, clock))["limits"]
        assert limits["waited_for"] == {"name": "creates_per_minute", "of": "account", "limit": 120}
        assert limits["waited_seconds"] == pytest.approx(held_of(longest)[0] / 1000, abs=0.01)


async def test_of_four_creates_at_once_those_that_cannot_be_admitted_are_refused_at_once(open_gateway: OpenGateway):
    """Six a minute, 25 seconds of patience: one runs, two can wait, and the fourth knows at once when to retry."""
    team = {"predictions_per_minute": 6, "burst": 1, "max_wait_seconds": 25}
    async with open_gateway(teams={"alpha": team}, clock=PausedClock()) as stack:
        assert (await create_story(stack)).status == 201
        waiting = [asyncio.create_task(create_story(stack)) for _ in range(2)]
        await until_metric(stack, 'waiters{kind="limit"} 2.0')
        refused = await create_story(stack)
        problem = assert_problem(refused, 429, origin=None)
        assert problem["limit"]["name"] == "predictions_per_minute"
        assert 25 < int(refused.headers["Retry-After"]) <= 30
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert creates(stack.upstream) == 1


async def test_create_is_not_held_beyond_its_own_deadline(open_gateway: OpenGateway):
    """`Cancel-After: 5`: a turn in ten seconds is of no use."""
    team = {"predictions_per_minute": 6, "burst": 1, "max_wait_seconds": 20}
    async with open_gateway(teams={"alpha": team}, clock=PausedClock()) as stack:
        assert (await create_story(stack)).status == 201
        body = {"version": "acme/storyteller", "input": {"prompt": "x"}}
        refused = await ask(stack, "POST", "/v1/predictions", json=body, headers={"Cancel-After": "5"})
        assert refused.status == 429
