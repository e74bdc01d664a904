"""Nodes that share rates, on a clock that is moved by hand: each is all of a gateway that has to do with rates."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from gateway.domain import rates
from gateway.domain.limits import Allowance, Limits
from gateway.domain.rates import Rate
from gateway.domain.teams import Caller, Team
from gateway.errors import UpstreamUnavailable
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
from tests.support.clock import ManualClock
from tests.support.divided_rates import MemoryNews, MemoryRates, TestMembership
from tests.support.live import teams_of
from tests.support.observer import RecordingObserver

CREATE = "predictions.create"
ROUNDING = 1e-5


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


def bucket_of(cluster: Cluster, node: Node, requests: int = 600) -> tuple[Bucket, ...]:
    team = cluster.teams[0]
    allowance = Allowance(own=Limits(requests_per_minute=requests))
    if team.allowance != allowance:
        team = cluster.teams[0] = Team(name=team.name, scopes=frozenset(), allowance=allowance)
    return node.rates.buckets(Caller(team=team, key_id="k", scopes=frozenset(), models=()))


async def ask(node: Node, buckets: tuple[Bucket, ...], clock: ManualClock) -> bool:
    """Make a request; return whether it was admitted."""
    return node.rates.admit(buckets, clock.monotonic()) is None or await node.rates.take(buckets) is None
