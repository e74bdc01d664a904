"""Callers of three nodes have one limit of requests, on a clock that is moved by hand."""

import asyncio
import itertools
from collections import Counter

import pytest

from gateway.domain import rates
from gateway.domain.limits import Allowance, Limits
from gateway.domain.rates import Rate
from gateway.domain.teams import Caller, Team
from gateway.errors import RateLimited, StoreUnavailable
from tests.support.clock import ManualClock, settle
from tests.support.rate_nodes import CREATE, ROUNDING, ask, bucket_of, opened


@pytest.mark.parametrize("limit", [6, 60, 600])
async def test_callers_of_any_node_get_the_limit_and_no_more(clock: ManualClock, limit: int) -> None:
    """Ten times as many requests as the limit allows, at any node in turn."""
    async with opened(clock) as cluster:
        whole, full_at, admitted = Rate.of(limit), rates.FULL, 0
        buckets = {node.number: bucket_of(cluster, node, limit) for node in cluster.nodes.values()}
        turns = itertools.cycle(cluster.nodes.values())
        for moment in range(600):
            for _ in range(max(1, limit // 120)):
                node = next(turns)
                if await ask(node, buckets[node.number], clock):
                    now = clock.monotonic()
                    assert rates.wait(full_at, whole, now) <= whole.interval * ROUNDING
                    full_at = rates.take(full_at, whole, now)
                    admitted += 1
            if moment % 20 == 0:
                for number in cluster.renewed:
                    cluster.store.renew(number)
            await clock.advance(0.05)
        assert admitted >= 0.95 * (whole.burst + limit / 2 - 1)


async def test_rate_that_is_used_often_is_counted_in_memory(clock: ManualClock) -> None:
    """After the first requests nothing but the two passes a second reaches the store."""
    async with opened(clock) as cluster:
        node = cluster.nodes[1]
        buckets = bucket_of(cluster, node)
        for _ in range(20):
            assert await ask(node, buckets, clock)
            await cluster.advance(0.25)
        cluster.store.steps.clear()
        for _ in range(20):
            assert await ask(node, buckets, clock)
            await cluster.advance(0.25)
        assert "take" not in cluster.store.steps
        assert node.exchange.shares == 1
        await cluster.advance(12)
        assert node.exchange.shares == 0
        assert not node.rates.active


async def test_rates_that_are_used_seldom_are_not_read_in_passes(clock: ManualClock) -> None:
    """Nor do two requests make a rate one that is used often, if they are far apart."""
    async with opened(clock) as cluster:
        node, account = cluster.nodes[1], {"account:creates", "account:requests"}
        await cluster.nodes[2].stop()
        await cluster.nodes[3].stop()
        allowance = Allowance(per_user=Limits(requests_per_minute=600))
        team = Team(name="red", scopes=frozenset(), allowance=allowance)
        caller = Caller(team=team, key_id="k", scopes=frozenset(), models=())
        for _ in range(2):
            for number in range(20):
                assert await ask(node, node.rates.buckets(caller, f"user{number}"), clock)
            await cluster.advance(1)
            assert cluster.store.names == account
        assert not node.rates.active
        often = node.rates.buckets(caller, "user1")
        assert await ask(node, often, clock)
        assert await ask(node, often, clock)
        await cluster.advance(1)
        assert cluster.store.names == {*account, "user:team red: user1"}


async def test_only_node_has_small_rates_in_memory_too_until_another_comes(clock: ManualClock) -> None:
    async with opened(clock, nodes=[1]) as cluster:
        node = cluster.nodes[1]
        buckets = bucket_of(cluster, node, 12)
        assert await ask(node, buckets, clock)
        await cluster.advance(5)
        cluster.store.steps.clear()
        assert await ask(node, buckets, clock)
        assert "take" not in cluster.store.steps
        other = await cluster.add(2)
        await cluster.advance(0.75)
        assert node.exchange.shares == 0
        await cluster.advance(5)
        assert await ask(other, bucket_of(cluster, other, 12), clock)
        assert await ask(node, buckets, clock)
        assert not await ask(node, buckets, clock)


async def test_small_rate_costs_a_step_for_each_request_and_refusals_none(clock: ManualClock) -> None:
    async with opened(clock) as cluster:
        node = cluster.nodes[1]
        buckets = bucket_of(cluster, node, 6)
        assert await ask(node, buckets, clock)
        for _ in range(20):
            assert not await ask(node, buckets, clock)
        assert cluster.store.steps.count("take") == 1
        other = cluster.nodes[2]
        for _ in range(20):
            assert not await ask(other, bucket_of(cluster, other, 6), clock)
        assert cluster.store.steps.count("take") == 2


async def test_held_creates_of_three_nodes_go_at_the_rate(clock: ManualClock) -> None:
    async with opened(clock) as cluster:
        buckets = {number: bucket_of(cluster, node, 60) for number, node in cluster.nodes.items()}
        for number, node in cluster.nodes.items():
            while await ask(node, buckets[number], clock):
                pass
        released: list[int] = []

        async def hold(number: int) -> None:
            queue = cluster.nodes[number].hold_queue
            if await queue.enqueue("red", buckets[number], clock.monotonic() + 60) is None:
                released.append(number)

        cluster.calls += [asyncio.create_task(hold(number)) for number in (1, 2, 3) for _ in range(5)]
        await settle()
        await cluster.advance(5)
        assert not released
        await cluster.advance(10)
        # Half of the burst of ten is left to requests that cannot wait.
        assert len(released) in (9, 10, 11)
        assert max(Counter(released).values()) <= 6
        await cluster.advance(8)
        assert Counter(released) == {1: 5, 2: 5, 3: 5}


async def test_caller_who_leaves_the_line_takes_nothing_with_it(clock: ManualClock) -> None:
    async with opened(clock) as cluster:
        node = cluster.nodes[1]
        buckets = bucket_of(cluster, node, 60)
        while await ask(node, buckets, clock):
            pass
        held = asyncio.create_task(node.hold_queue.enqueue("red", buckets, clock.monotonic() + 60))
        await cluster.advance(3)
        held.cancel()
        await settle()
        assert len(node.hold_queue) == 0
        await cluster.advance(7)
        assert sum([await ask(node, buckets, clock) for _ in range(20)]) == 10


async def test_request_that_one_rate_refuses_costs_nothing_in_the_others(clock: ManualClock) -> None:
    async with opened(clock) as cluster:
        node = cluster.nodes[1]
        allowance = Allowance(own=Limits(requests_per_minute=600), per_user=Limits(requests_per_minute=6))
        team = Team(name="red", scopes=frozenset(), allowance=allowance)
        caller = Caller(team=team, key_id="k", scopes=frozenset(), models=())
        wide, both = node.rates.buckets(caller), node.rates.buckets(caller, "ann")
        assert await ask(node, both, clock)
        for _ in range(200):
            assert not await ask(node, both, clock)
        # Whether the other rate is counted by steps or in memory. Parts of a token can be in two places.
        assert sum([await ask(node, wide, clock) for _ in range(30)]) == 30
        await cluster.advance(1)
        assert node.exchange.shares == 1
        for _ in range(200):
            assert not await ask(node, both, clock)
        assert sum([await ask(node, wide, clock) for _ in range(200)]) in (78, 79)


async def test_request_while_the_store_is_away_is_refused_if_it_needs_a_step(clock: ManualClock) -> None:
    async with opened(clock) as cluster:
        node = cluster.nodes[1]
        buckets = bucket_of(cluster, node, 60)
        cluster.store.is_away = True
        with pytest.raises(StoreUnavailable):
            await ask(node, buckets, clock)
        node.limiters[0].resize(0.0, clock.monotonic())
        with pytest.raises(RateLimited):
            await node.account.create_permit(CREATE, "red", clock.monotonic() + 0.1)
