"""The one account behind the edge: creates in turn, upstream's refusals waited out, the gateway's own calls served."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import aiohttp

from gateway.simulator import Fault, Simulator
from tests.support.clock import ManualClock
from tests.support.http_calls import ask, metrics_of, until_metric
from tests.support.polling import stable, until
from tests.support.samples import create, finished
from tests.support.session_calls import STORY, open_session, teach_version, versioned_model
from tests.support.session_calls import create as make
from tests.support.stack import OpenGateway, Stack, start_gateway
from tests.support.system_clocks import PausedClock
from tests.support.upstream import creates, version_of

FAST = "acme/storyteller"
CREATE = "predictions.create"


async def shown(stack: Stack, start: str) -> None:
    """Wait until a metric begins so."""
    await until_metric(stack, f"\nreplicate_gateway_{start}")


async def test_creates_over_the_account_rate_wait_for_their_turn(open_gateway: OpenGateway):
    """Fifty creates at once at five a second: all 55 callers get their prediction, the last one after a second."""
    async with open_gateway(upstream={"creates_per_minute": 300}) as stack:
        began = time.monotonic()
        replies = await asyncio.gather(*(create(stack, model=FAST) for _ in range(55)))
        assert {reply.status for reply in replies} == {201}
        assert time.monotonic() - began >= 0.8
        assert creates(stack.upstream) == 55
        text = await metrics_of(stack)
        assert 'account_wait_seconds_count{lane="creates"}' in text
        assert 'replicate_gateway_waiters{kind="account"} 0.0' in text


async def test_create_turns_are_shared_by_team_weight(open_gateway: OpenGateway, upstream: Simulator):
    """One team sends a burst; a team with three times the weight comes later and does not wait behind the whole
    burst.
    """
    teams, clock = {"alpha": {"weight": 1}, "beta": {"weight": 3}}, PausedClock()
    account = {"creates_per_minute": 600}
    async with open_gateway(upstream=account, teams=teams, clock=clock) as stack, open_session(stack) as alpha:
        order: list[str] = []

        async def one(key: str) -> None:
            if key == "alpha":
                assert (await make(alpha, versioned_model(stack), {"prompt": "x"})).status == 201
            else:
                assert (await create(stack, key=key, model=FAST)).status == 201
            order.append(key)

        flood = [asyncio.create_task(one("alpha")) for _ in range(130)]
        await until(lambda: len(order) == 100)
        await shown(stack, 'waiters{kind="account"} 30.0')
        late = [asyncio.create_task(one("beta")) for _ in range(15)]
        await shown(stack, 'waiters{kind="account"} 45.0')
        clock.resume()
        await asyncio.gather(*late)
        # Five, but for answers that overtake each other.
        assert Counter(order[100:])["alpha"] <= 12
        await asyncio.gather(*flood)


async def test_low_account_credit_lowers_the_create_rate(open_gateway: OpenGateway, upstream: Simulator):
    """Upstream's message about low credit sets the rate; the create that received it is sent again, and no caller
    sees an error.
    """
    async with open_gateway() as stack:
        upstream.faults.set(Fault("throttle_low_credit", operation=CREATE, retry_after=1, times=1))
        began = time.monotonic()
        reply = await create(stack, model=FAST)
        assert reply.status == 201
        assert time.monotonic() - began >= 1
        assert (creates(upstream), len(upstream.predictions)) == (2, 1)
        text = await metrics_of(stack)
        assert 'replicate_gateway_account_rate_per_minute{lane="creates"} 6.0' in text
        assert 'account_throttles_total{lane="creates"} 1.0' in text
        assert 'replicate_gateway_account_rate_per_minute{lane="requests"} 3000.0' in text


async def test_create_without_a_turn_in_time_gets_the_gateways_429(open_gateway: OpenGateway, upstream: Simulator):
    """The 429 names the account; the intent is deleted, so nothing blocks the next create."""
    clock = ManualClock()
    async with open_gateway(teams={"alpha": {"max_wait_seconds": 0.3}}, clock=clock) as stack:
        upstream.faults.set(Fault("throttle", operation=CREATE, retry_after=2, times=1))
        refused = await create(stack, model=FAST)
        assert (refused.status, refused.json["title"]) == (429, "Too many requests")
        assert (refused.json["limit"]["of"], refused.json["limit"]["name"]) == ("account", "creates_per_minute")
        assert refused.json["limit"]["limit"] == 600
        assert refused.json["retry_after"] == int(refused.headers["Retry-After"]) == 2
        assert (await ask(stack, "GET", "/v1/predictions")).json["results"] == []
        again = await create(stack, model=FAST)
        assert again.status == 429
        assert creates(upstream) == 1
        assert 'account_refusals_total{lane="creates",reason="too_long"} 2.0' in await metrics_of(stack)
        await clock.advance(2)
        assert (await create(stack, model=FAST)).status == 201
        assert creates(upstream) == 2


async def test_identical_creates_join_a_queued_create(open_gateway: OpenGateway, upstream: Simulator):
    """Ten callers ask for the same while the first waits for its turn: one turn, one create, ten predictions."""
    async with open_gateway() as stack, open_session(stack) as alpha:
        await teach_version(alpha, FAST, version_of(upstream, FAST))
        upstream.faults.set(Fault("throttle", operation=CREATE, retry_after=1, times=1))
        replies = await asyncio.gather(*(make(alpha, versioned_model(stack)) for _ in range(10)))
        assert {reply.status for reply in replies} == {201}
        assert len({reply.json["id"] for reply in replies}) == 10
        assert (creates(upstream), len(upstream.predictions)) == (2, 1)


async def test_time_in_the_queue_counts_towards_prefer_wait(open_gateway: OpenGateway, upstream: Simulator):
    """`Prefer: wait=4` and four seconds in the queue: the response comes at once, as the wait does not start again."""
    clock = ManualClock()
    async with open_gateway(clock=clock) as stack:
        upstream.faults.set(Fault("throttle", operation=CREATE, retry_after=4, times=1))
        making = asyncio.create_task(create(stack, headers={"Prefer": "wait=4"}))
        await shown(stack, 'waiters{kind="account"} 1.0')
        await clock.advance(4)
        reply = await making
        assert (reply.status, reply.json["status"]) == (202, "starting")
        assert creates(upstream) == 2


async def test_queued_create_is_dropped_when_its_only_caller_disconnects(
    open_gateway: OpenGateway, upstream: Simulator
):
    """No caller is left and none shares it: no run, no intent, and the next create gets its turn."""
    clock = PausedClock()
    async with open_gateway(clock=clock) as stack:
        upstream.faults.set(Fault("throttle", operation=CREATE, retry_after=1, times=1))
        making = asyncio.create_task(create(stack, model=FAST))
        await shown(stack, 'waiters{kind="account"} 1.0')
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        clock.resume()
        assert (await create(stack, model=FAST)).status == 201
        assert (creates(upstream), len(upstream.predictions)) == (2, 1)
        assert len((await ask(stack, "GET", "/v1/predictions")).json["results"]) == 1


async def test_queued_create_is_sent_when_joined_callers_remain(open_gateway: OpenGateway, upstream: Simulator):
    """The first caller disconnects while queued; the callers who joined keep their place and get their prediction."""
    clock = PausedClock()
    async with open_gateway(clock=clock) as stack, open_session(stack) as alpha:
        await teach_version(alpha, FAST, version_of(upstream, FAST))
        upstream.faults.set(Fault("throttle", operation=CREATE, retry_after=1, times=1))
        async with open_session(stack) as hasty:
            first = asyncio.create_task(make(hasty, versioned_model(stack)))
            await shown(stack, 'waiters{kind="account"} 1.0')
            others = [asyncio.create_task(make(alpha, versioned_model(stack))) for _ in range(3)]
            await shown(stack, "http_requests_in_flight 4.0")
            first.cancel()
        clock.resume()
        assert {reply.status for reply in await asyncio.gather(*others)} == {201}
        assert (creates(upstream), len(upstream.predictions)) == (2, 1)


async def test_cancel_overtakes_queued_reads(open_gateway: OpenGateway, upstream: Simulator):
    """Two hundred relayed reads queue for an account of one request a second; a cancel is among the next few
    requests.
    """
    patient = {
        "upstream": {"requests_per_minute": 60},
        "teams": {"alpha": {"max_wait_seconds": 300}},
        "cache": {"metadata_ttl_seconds": 0},
    }
    clock = ManualClock()
    async with open_gateway(**patient, clock=clock) as stack, open_session(stack) as alpha:
        made = await create(stack)
        reads = [asyncio.create_task(alpha.get(f"/v1/models?n={number}")) for number in range(200)]
        await shown(stack, 'waiters{kind="call"} 1')
        cancelled = await ask(stack, "POST", f"/v1/predictions/{made.json['id']}/cancel")
        assert cancelled.json["status"] == "canceled"
        while not upstream.requests.count("predictions.cancel"):
            await clock.advance(1)
            await stable(lambda: len(upstream.requests))
        assert sum(task.done() for task in reads) < 50
        for task in reads:
            task.cancel()
        await asyncio.gather(*reads, return_exceptions=True)


async def test_reads_over_the_account_rate_get_429_after_the_queue_time(open_gateway: OpenGateway):
    """A team's reads wait as long as its creates do; then a 429 names the account."""
    limits = {"requests_per_minute": 1}
    teams = {"alpha": {"max_wait_seconds": 0.3}}
    async with open_gateway(upstream=limits, teams=teams, cache={"metadata_ttl_seconds": 0}) as stack:
        replies = [await ask(stack, "GET", "/v1/hardware") for _ in range(2)]
        assert [reply.status for reply in replies] == [200, 429]
        assert (replies[1].json["limit"]["of"], replies[1].json["limit"]["name"]) == ("account", "requests_per_minute")


async def test_run_polling_continues_when_reads_exhaust_the_account_rate(open_gateway: OpenGateway):
    """Polls of runs own half of the requests: a run ends for its caller however many others read."""
    patient = {"upstream": {"requests_per_minute": 240}, "teams": {"alpha": {"max_wait_seconds": 300}}}
    async with open_gateway(**patient, cache={"metadata_ttl_seconds": 0}) as stack, open_session(stack) as alpha:
        reads = [asyncio.create_task(alpha.get(f"/v1/models?n={number}")) for number in range(200)]
        await shown(stack, 'waiters{kind="call"} 1')
        made = await create(stack, model=FAST)
        assert (await finished(stack, made.json["id"]))["status"] == "succeeded"
        assert not all(task.done() for task in reads)
        for task in reads:
            task.cancel()
        await asyncio.gather(*reads, return_exceptions=True)


async def test_shutdown_answers_queued_creates_with_503(upstream: Simulator, tmp_path: Path):
    """Callers in the queue, and callers who joined one, get 503 at once; the next start finds nothing left of them."""
    async with aiohttp.ClientSession() as session:
        async with start_gateway(upstream, tmp_path) as stack:
            upstream.faults.set(Fault("throttle", operation=CREATE, retry_after=15))
            async with open_session(stack) as alpha:
                await teach_version(alpha, FAST, version_of(upstream, FAST))
            body = {"version": version_of(upstream, FAST), "input": STORY}
            headers = {"Authorization": f"Bearer {stack.keys['alpha']}"}
            url = f"{stack.base_url}/predictions"
            making = [asyncio.create_task(session.post(url, json=body, headers=headers)) for _ in range(4)]
            await shown(stack, "http_requests_in_flight 4.0")
            await shown(stack, 'waiters{kind="account"} 1.0')
        assert {reply.status for reply in await asyncio.gather(*making)} == {503}
    upstream.faults.clear()
    asked = len(upstream.requests)
    async with start_gateway(upstream, tmp_path, keys=stack.keys) as stack, open_session(stack) as alpha:
        assert (await make(alpha, versioned_model(stack))).status == 201
        assert upstream.requests.count("predictions.list") == 0
    assert len(upstream.requests) > asked
