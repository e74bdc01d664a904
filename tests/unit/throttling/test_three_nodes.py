"""Three nodes share rates, on a clock that is moved by hand: the limit holds at every moment, and weights hold too."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from gateway.domain import rates
from gateway.domain.limits import Allowance, Limits
from gateway.domain.rates import Rate
from gateway.domain.teams import Caller, Team
from gateway.domain.upstream_response import Answer
from gateway.errors import RateLimited, StoreUnavailable, UpstreamUnavailable
from gateway.runtime.live import LiveSettings
from gateway.throttling.divided import DividedLimiter
from gateway.throttling.divided_hold_queue import DividedHoldQueue
from gateway.throttling.divided_request_rates import DividedRequestRates
from gateway.throttling.permit_desk import PermitDesk
from gateway.throttling.rules.request_rates import Bucket
from gateway.throttling.settings import ThrottlingSettings
from gateway.throttling.share_exchange import ShareExchange
from gateway.throttling.share_lease import ShareLease
from gateway.throttling.upstream_limiter import UpstreamLimiter, asking
from tests.support.clock import ManualClock, settle
from tests.support.divided_rates import MemoryNews, MemoryRates, TestMembership
from tests.support.live import teams_of
from tests.support.observer import RecordingObserver

CREATE = "predictions.create"
ROUNDING = 1e-5
LOW_CREDIT = (
    b'{"detail":"Request was throttled. Your rate limit for creating predictions is reduced to 6 requests per minute '
    b'with a burst of 1 requests while you have less than $5.0 in credit. Your rate limit resets in ~5s.",'
    b'"status":429,"retry_after":5}'
)


class Node:
    """One of the nodes."""

    def __init__(self, cluster: "Cluster", number: int) -> None:
        clock, store = cluster.clock, cluster.store
        self.number = number
        self.membership = TestMembership(number)
        self.lease = ShareLease(self.membership, clock.monotonic)
        self.notes = RecordingObserver()
        self.account = UpstreamLimiter(
            teams_of(*cluster.teams),
            clock,
            self.notes,
            LiveSettings(ThrottlingSettings(creates_per_minute=cluster.creates, requests_per_minute=3000)),
            lambda *given: DividedLimiter(*given, lease=self.lease, asker=lambda: asking.get().name),
        )
        self.desk = PermitDesk(store, lambda: self.membership.number)
        self.rates = DividedRequestRates(self.desk, self.lease, clock)
        self.hold_queue = DividedHoldQueue(clock, self.notes, self.rates)
        self.limiters = [each for each in self.account.limiters if isinstance(each, DividedLimiter)]
        self.exchange = ShareExchange(
            store, self.membership, MemoryNews(cluster.news), clock, self.lease, self.limiters, self.rates
        )
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.exchange.divide()
        self.tasks = [asyncio.create_task(self.exchange.run()), asyncio.create_task(self.account.run())]

    @property
    def share(self) -> float:
        """Its share of the account's creates."""
        return self.limiters[0].share

    async def stop(self) -> None:
        """Stop its background loops: a process that hangs."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class Cluster:
    """The nodes, and one bucket of the whole rate that measures what they do together."""

    def __init__(self, clock: ManualClock, creates: float, weights: dict[str, float]) -> None:
        self.clock, self.creates = clock, creates
        self.store, self.news = MemoryRates(clock), list[MemoryNews]()
        self.teams = [
            Team(
                name=name,
                scopes=frozenset(),
                weight=weight,
                max_wait_seconds=1000,
                allowance=Allowance(own=Limits(requests_per_minute=600)),
            )
            for name, weight in weights.items()
        ]
        self.nodes: dict[int, Node] = {}
        self.renewed: set[int] = set()
        self.whole, self.full_at = Rate.of(creates), rates.FULL
        self.granted: Counter[tuple[int, str]] = Counter()
        self.calls: list[asyncio.Task[None]] = []

    async def add(self, number: int) -> Node:
        self.store.renew(number)
        self.renewed.add(number)
        node = self.nodes[number] = Node(self, number)
        await node.start()
        return node

    async def advance(self, seconds: float) -> None:
        """Let time pass; leases are renewed every two seconds."""
        for _ in range(round(seconds * 4)):
            for number in self.renewed:
                self.store.renew(number)
            await self.clock.advance(0.25)

    def count(self, node: int, name: str) -> None:
        """Count a call, which the bucket of the whole rate must admit."""
        now = self.clock.monotonic()
        assert rates.wait(self.full_at, self.whole, now) <= self.whole.interval * ROUNDING
        self.full_at = rates.take(self.full_at, self.whole, now)
        self.granted[node, name] += 1

    def call(self, number: int, team: str, count: int) -> None:
        """Let a team make calls at a node, as fast as it may, from `count` connections."""

        async def calls() -> None:
            while True:
                try:
                    await self.nodes[number].account.create_permit(CREATE, team, self.clock.monotonic() + 1000)
                except UpstreamUnavailable:
                    await self.clock.sleep(1)
                    continue
                self.count(number, team)

        self.calls += [asyncio.create_task(calls()) for _ in range(count)]

    def of_team(self, name: str) -> int:
        return sum(count for (_, team), count in self.granted.items() if team == name)


@asynccontextmanager
async def opened(
    clock: ManualClock, *, creates: float = 600, nodes: Iterable[int] = (1, 2, 3), **weights: float
) -> AsyncIterator[Cluster]:
    cluster = Cluster(clock, creates, weights or {"red": 1.0})
    for number in nodes:
        await cluster.add(number)
    yield cluster
    for task in cluster.calls:
        task.cancel()
    await asyncio.gather(*cluster.calls, return_exceptions=True)
    for node in cluster.nodes.values():
        await node.stop()
        await node.hold_queue.close()
        await node.desk.close()


# The account's rates


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


# Request rates


def bucket_of(cluster: Cluster, node: Node, requests: int = 600) -> tuple[Bucket, ...]:
    team = cluster.teams[0]
    allowance = Allowance(own=Limits(requests_per_minute=requests))
    if team.allowance != allowance:
        team = cluster.teams[0] = Team(name=team.name, scopes=frozenset(), allowance=allowance)
    return node.rates.buckets(Caller(team=team, key_id="k", scopes=frozenset(), models=()))


async def ask(node: Node, buckets: tuple[Bucket, ...], clock: ManualClock) -> bool:
    """Make a request; return whether it was admitted."""
    return node.rates.admit(buckets, clock.monotonic()) is None or await node.rates.take(buckets) is None


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
