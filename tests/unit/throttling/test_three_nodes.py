"""Three nodes share the account's rates, on a clock that is moved by hand: the limit holds always, and weights too."""

import asyncio
import random

import pytest

from gateway.domain.rates import Rate
from gateway.domain.upstream_response import Answer
from gateway.errors import StoreUnavailable, UpstreamUnavailable
from tests.support.clock import ManualClock, settle
from tests.support.rate_nodes import CREATE, ask, bucket_of, opened

LOW_CREDIT = (
    b'{"detail":"Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute '
    b'with a burst of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~5s.",'
    b'"status":429,"retry_after":5}'
)


async def test_busy_node_has_nearly_the_whole_rate_and_an_idle_one_a_token(clock: ManualClock) -> None:
    async with opened(clock) as cluster:
        cluster.call(1, "red", 5)
        await cluster.advance(60)
        assert cluster.nodes[1].share == pytest.approx(0.98, abs=0.01)
        assert cluster.nodes[2].limiters[0].take()
        assert cluster.granted[1, "red"] >= 98 + 0.97 * 600


async def test_shares_follow_demand_within_a_second(clock: ManualClock) -> None:
    async with opened(clock) as cluster:
        cluster.call(1, "red", 5)
        await cluster.advance(30)
        for task in cluster.calls:
            task.cancel()
        before = cluster.granted.copy()
        cluster.call(2, "red", 50)
        await cluster.advance(1)
        assert cluster.nodes[2].share > 0.5
        await cluster.advance(10)
        assert cluster.granted[2, "red"] - before[2, "red"] >= 0.9 * 100


async def test_weights_hold_over_nodes(clock: ManualClock) -> None:
    """Red has calls on one node, blue on all three, green on two; each gets its part of the whole."""
    async with opened(clock, red=3.0, blue=2.0, green=1.0) as cluster:
        for number, team in ((1, "red"), (1, "blue"), (2, "blue"), (3, "blue"), (2, "green"), (3, "green")):
            cluster.call(number, team, 40)
        await cluster.advance(20)
        cluster.granted.clear()
        await cluster.advance(60)
        counts = {team: cluster.of_team(team) for team in ("red", "blue", "green")}
        assert sum(counts.values()) == pytest.approx(600, rel=0.02)
        assert counts == {"red": pytest.approx(300, rel=0.04), "blue": pytest.approx(200, rel=0.04),
                          "green": pytest.approx(100, rel=0.04)}  # fmt: skip


async def test_team_that_comes_later_gets_its_part_on_a_busy_node(clock: ManualClock) -> None:
    """It joins where another has had the node for itself."""
    async with opened(clock, red=1.0, blue=1.0) as cluster:
        for number in (1, 2, 3):
            cluster.call(number, "red", 30)
        await cluster.advance(20)
        cluster.call(3, "blue", 30)
        await cluster.advance(3)
        cluster.granted.clear()
        await cluster.advance(60)
        assert cluster.of_team("blue") == pytest.approx(300, rel=0.05)
        assert cluster.of_team("red") == pytest.approx(300, rel=0.05)


async def test_share_of_a_node_that_hangs_comes_back_with_the_end_of_its_lease(clock: ManualClock) -> None:
    async with opened(clock) as cluster:
        for number in (1, 2, 3):
            cluster.call(number, "red", 20)
        await cluster.advance(20)
        await cluster.nodes[3].stop()
        cluster.renewed.discard(3)
        await cluster.advance(8)
        assert cluster.nodes[1].share + cluster.nodes[2].share == pytest.approx(2 / 3, abs=0.05)
        await cluster.advance(4)
        assert cluster.nodes[1].share + cluster.nodes[2].share == pytest.approx(1.0, abs=0.01)
        # It comes back to life: its lease is over, so it may use nothing.
        assert not cluster.nodes[3].limiters[0].take()
        cluster.granted.clear()
        await cluster.advance(30)
        assert cluster.granted[1, "red"] + cluster.granted[2, "red"] == pytest.approx(300, rel=0.02)


@pytest.mark.parametrize("jump", [30.0, 86_400.0, -30.0])
async def test_jump_of_the_stores_clock_gives_no_share_out_twice(clock: ManualClock, jump: float) -> None:
    """After one forward, the leases of all look expired until they renew them, and one node is the first to do so.

    Each call must find a token in one bucket of the whole rate.
    """
    async with opened(clock) as cluster:
        for number in (1, 2, 3):
            cluster.call(number, "red", 20)
        await cluster.advance(20)
        before = {number: node.share for number, node in cluster.nodes.items()}
        cluster.store.jumped += jump
        cluster.store.renew(1)
        await clock.advance(1.9)
        assert {number: node.share for number, node in cluster.nodes.items()} == pytest.approx(before, abs=0.05)
        cluster.granted.clear()
        await cluster.advance(30)
        assert cluster.of_team("red") == pytest.approx(300, rel=0.02)


async def test_node_that_slept_past_its_lease_uses_no_share_that_others_have(clock: ManualClock) -> None:
    """Nobody has ended it meanwhile, so it renews its lease under the same number."""
    async with opened(clock, nodes=[1, 2]) as cluster:
        for number in (1, 2):
            cluster.call(number, "red", 20)
        await cluster.advance(20)
        sleeper = cluster.nodes[2]
        await sleeper.stop()
        cluster.renewed.discard(2)
        await cluster.advance(12)
        assert cluster.nodes[1].share == pytest.approx(1.0)
        assert sleeper.share > 0.4
        cluster.store.renew(2)
        cluster.renewed.add(2)
        await sleeper.start()
        await settle()
        assert sleeper.share == 0.0
        await cluster.advance(5)
        assert cluster.nodes[1].share + sleeper.share == pytest.approx(1.0, abs=0.02)
        assert sleeper.share > 0.4


async def test_fenced_node_hands_out_nothing_and_joins_again_under_a_new_number(clock: ManualClock) -> None:
    async with opened(clock) as cluster:
        await cluster.advance(2)
        node = cluster.nodes[1]
        while node.limiters[0].take():
            pass
        waiting = asyncio.create_task(node.account.create_permit(CREATE, "red", clock.monotonic() + 20))
        await settle()
        cluster.renewed.discard(1)
        del cluster.store.leases[1]
        node.membership.lose()
        for refused in (waiting, node.account.create_permit(CREATE, "red", clock.monotonic() + 20)):
            with pytest.raises(UpstreamUnavailable):
                await refused
        assert not node.limiters[0].take()
        await cluster.advance(2)
        assert not node.limiters[0].take()
        assert node.account.states()[0].remaining == 0
        with pytest.raises(StoreUnavailable):
            await node.rates.take(bucket_of(cluster, node))
        cluster.store.renew(4)
        cluster.renewed.add(4)
        node.membership.join(4)
        # What comes before the first pass waits for it.
        assert not node.lease.is_valid()
        waiting = asyncio.create_task(node.account.create_permit(CREATE, "red", clock.monotonic() + 20))
        asking_ = asyncio.create_task(ask(node, bucket_of(cluster, node), clock))
        await cluster.advance(0.5)
        assert [waiting.done(), asking_.done()] == [True, True]
        assert await asking_
        await cluster.advance(3)
        assert node.share > 0.3
        assert node.limiters[0].take()


async def test_nodes_come_and_go_while_the_limit_holds(clock: ManualClock) -> None:
    """Every call is measured by the bucket of the whole rate: see `Cluster.count`."""
    async with opened(clock, nodes=[1], red=2.0, blue=1.0) as cluster:
        cluster.call(1, "red", 20)
        cluster.call(1, "blue", 20)
        await cluster.advance(5)
        for number in (2, 3, 4):
            await cluster.add(number)
            cluster.call(number, "blue", 15)
            await cluster.advance(1.5)
        await cluster.nodes[2].stop()
        cluster.renewed.discard(2)
        await cluster.advance(7)
        cluster.call(4, "red", 20)
        await cluster.advance(7)
        await cluster.add(5)
        await cluster.advance(5)
        assert sum(cluster.nodes[number].share for number in (1, 3, 4, 5)) == pytest.approx(1.0, abs=0.02)
        assert sum(cluster.granted.values()) >= 0.9 * (100 + 10 * 28)


@pytest.mark.parametrize("seed", range(3))
async def test_limit_holds_although_answers_of_the_store_are_lost(clock: ManualClock, seed: int) -> None:
    """A third of the steps, while demand moves. What was lost comes back: at the end all of the rate is used."""
    dice = random.Random(seed)
    async with opened(clock, red=2.0, blue=1.0) as cluster:
        cluster.store.loses_answer = lambda: dice.random() < 1 / 3
        for _ in range(8):
            for task in cluster.calls:
                task.cancel()
            cluster.call(dice.randint(1, 3), "red", dice.randint(1, 30))
            cluster.call(dice.randint(1, 3), "blue", dice.randint(1, 30))
            await cluster.advance(dice.choice([0.5, 1.5, 4]))
        cluster.store.loses_answer = lambda: False
        for number in (1, 2, 3):
            cluster.call(number, "red", 30)
        await cluster.advance(3)
        cluster.granted.clear()
        await cluster.advance(20)
        assert sum(cluster.granted.values()) == pytest.approx(200, rel=0.03)


async def test_store_that_is_away_ends_shares_with_the_lease(clock: ManualClock) -> None:
    """Until then the nodes go on with what they have."""
    async with opened(clock) as cluster:
        cluster.call(1, "red", 5)
        await cluster.advance(30)
        cluster.store.is_away = True
        cluster.granted.clear()
        await cluster.advance(5)
        assert cluster.granted[1, "red"] == pytest.approx(50, abs=3)
        await cluster.advance(6)
        cluster.granted.clear()
        await cluster.advance(5)
        assert not cluster.granted
        cluster.store.is_away = False
        await cluster.advance(3)
        assert cluster.granted[1, "red"] > 20


async def test_429_of_one_node_pauses_and_lowers_the_rate_of_all(clock: ManualClock) -> None:
    """6 a minute cannot be divided: the nodes take turns, each team by its weight."""
    async with opened(clock, red=2.0, blue=1.0) as cluster:
        await cluster.advance(1)
        cluster.nodes[1].account.observe_response(CREATE, Answer(429, {}, LOW_CREDIT))
        await cluster.advance(0.25)
        assert [each.account.states()[0].learned for each in cluster.nodes.values()] == [6.0] * 3
        assert not any(each.limiters[0].take() for each in cluster.nodes.values())
        cluster.whole, cluster.full_at = Rate(6.0, 1), clock.monotonic() + 4.5
        for number, team in ((1, "red"), (2, "red"), (2, "blue"), (3, "blue")):
            cluster.call(number, team, 10)
        await cluster.advance(4)
        assert not cluster.granted
        await cluster.advance(56)
        assert sum(cluster.granted.values()) in (5, 6)
        assert all(each.share == 0.0 for each in cluster.nodes.values())


async def test_turns_of_a_low_rate_follow_weights(clock: ManualClock) -> None:
    async with opened(clock, creates=60, red=2.0, blue=1.0) as cluster:
        for number, team in ((1, "red"), (2, "red"), (2, "blue"), (3, "blue")):
            cluster.call(number, team, 200)
        await cluster.advance(20)
        cluster.granted.clear()
        await cluster.advance(150)
        assert sum(cluster.granted.values()) == pytest.approx(150, rel=0.03)
        assert cluster.of_team("red") == pytest.approx(100, rel=0.06)


async def test_rate_that_was_lowered_grows_on_all_nodes(clock: ManualClock) -> None:
    async with opened(clock) as cluster:
        cluster.nodes[1].account.observe_response(CREATE, Answer(429, {"retry-after": "1"}, b"{}"))
        await cluster.advance(1)
        assert [each.account.states()[0].learned for each in cluster.nodes.values()] == [300.0] * 3
        late = await cluster.add(4)
        cluster.nodes[2].account.observe_response(CREATE, Answer(429, {"retry-after": "1"}, b"{}"))
        await cluster.advance(1)
        # The second 429 is part of the same storm.
        assert late.account.states()[0].learned == 300.0
        await cluster.advance(62)
        for each in cluster.nodes.values():
            each.limiters[0].take()
        assert [each.account.states()[0].learned for each in cluster.nodes.values()] == [360.0] * 4
