"""Divides rates among the nodes: twice a second, each node reads what all need, and gives back or takes shares.

The nodes compute the same division from the same demands (`rules/share_decision.py`). A node that has more than its
part gives the rest back; one that has less takes what is free. News makes the others look at once. A pass is one read
for all rates of this node, and one step for those whose shares or demands have changed.

- **The account's rates**: every node has a share at all times, of one token at least.
- **Request rates**: a node has a share of those that it uses often, and gives it back ten seconds after the last use.
- A rate that cannot be divided stays in the store as a whole: for request rates every token is a step, and for the
  account's rates the nodes take turns.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final

from gateway.domain.ports.clock import Clock
from gateway.errors import GatewayError
from gateway.nodes.membership import Membership
from gateway.nodes.news import News, Topic
from gateway.runtime.sleep import sleep_until_event
from gateway.throttling.divided import Divided, DividedLimiter
from gateway.throttling.divided_request_rates import DividedRequestRates
from gateway.throttling.ports import DividedRates
from gateway.throttling.rules.divided_bucket import DividedBucket
from gateway.throttling.rules.divided_rate import Exchange, KnownRates, Seen, filled
from gateway.throttling.rules.share_decision import RESERVE, Need, decide, is_alone, is_divisible
from gateway.throttling.share_lease import ShareLease

logger = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 0.5
_TURN_SECONDS: Final = 0.25
_LEAST_PAUSE_SECONDS: Final = 0.05
_IDLE_SECONDS: Final = 10.0
_OFTEN: Final = 2
"""Requests between two passes, from which on a share is worth its steps."""
_MOST_SHARES: Final = 1000
"""Request rates of which a node has shares, since each is read in every pass. The others are used by steps."""
_TURNS_AT_ONCE: Final = 10
_FORGET_EVERY_SECONDS: Final = 60.0
_FORGOTTEN_AFTER_SECONDS: Final = 600.0
_FORGOTTEN_AT_ONCE: Final = 1000


class ShareExchange:
    """Keeps this node's shares as they should be."""

    def __init__(
        self,
        store: DividedRates,
        membership: Membership,
        news: News,
        clock: Clock,
        lease: ShareLease,
        limiters: Iterable[DividedLimiter],
        rates: DividedRequestRates,
    ) -> None:
        self._store = store
        self._membership = membership
        self._news = news
        self._clock = clock
        self._lease = lease
        self._limiters = tuple(limiters)
        self._rates = rates
        self._changed = asyncio.Event()
        self._node = -1
        self._nodes = 1
        self._number = 0
        self._throttles: dict[str, int] = {}
        self._forgot_at = clock.monotonic()
        self._is_failing = False
        membership.add_lost_listener(self._on_lost)
        membership.add_joined_listener(self._changed.set)
        news.add_listener(Topic.LIMITS, self._on_news)
        rates.on_wanted = self._changed.set
        for limiter in self._limiters:
            limiter.on_throttled = self._changed.set

    def _on_lost(self) -> None:
        self._lease.end()
        for limiter in self._limiters:
            limiter.fail_waiting()
        self._changed.set()

    def _on_news(self, names: Sequence[str] | None) -> None:
        if names is None or any(name in self._rates.active or name.startswith("account:") for name in names):
            self._changed.set()

    @property
    def shares(self) -> int:
        """Number of request rates of which this node holds a share."""
        return sum(bucket.share > 0.0 for bucket in self._rates.active.values())

    async def run(self) -> None:
        """Divide until cancelled."""
        while True:
            self._changed.clear()
            await self.divide()
            is_in_turn = any(limiter.rate.needs_turn and len(limiter) for limiter in self._limiters)
            await self._clock.sleep(_LEAST_PAUSE_SECONDS)
            pause = (_TURN_SECONDS if is_in_turn else INTERVAL_SECONDS) - _LEAST_PAUSE_SECONDS
            await sleep_until_event(self._clock, pause, self._changed)

    async def divide(self) -> None:
        """Make one pass. If the store fails, shares stay as they are until the lease ends."""
        try:
            await self._divide()
        except GatewayError as exc:
            if not self._is_failing:
                logger.warning("rates could not be divided among the nodes", extra={"reason": exc.detail})
            self._is_failing = True
        else:
            self._is_failing = False

    async def _divide(self) -> None:
        node, clock = self._membership.number, self._clock
        if node != self._node:
            self._start_over(node)
        for limiter in self._limiters:
            await self._record_throttle(limiter)
        divided: list[Divided] = [*self._limiters, *self._used_often()]
        sent_at = self._lease.now()
        known = await self._store.read_rates(node, [each.name for each in divided])
        if not known.lease_seconds > 0.0 or node != self._membership.number:
            return
        self._nodes = known.nodes
        now = clock.monotonic()
        for each in divided:
            self._learn(each, known, now)
        # Not before: from here on the node uses its shares, and some may have been given to others.
        self._lease.confirm(sent_at, known.lease_seconds)
        await self._exchange(divided, known, now)
        for limiter in self._limiters:
            await self._take_turns(limiter)
        if now - self._forgot_at > _FORGET_EVERY_SECONDS:
            self._forgot_at = now
            await self._store.forget_rates(_FORGOTTEN_AFTER_SECONDS, _FORGOTTEN_AT_ONCE)

    def _used_often(self) -> list[DividedBucket]:
        """Return the request rates that need a share or have one, and drop the others."""
        shares, used_often = self.shares, []
        for bucket in list(self._rates.active.values()):
            often = 1 if self._nodes == 1 or bucket.is_short else _OFTEN
            if bucket.share == 0.0 and not bucket.is_recorded:
                is_wanted = bucket.requests >= often and is_divisible(bucket.rate, self._nodes)
                if not is_wanted or shares >= _MOST_SHARES:
                    bucket.requests = 0
                    del self._rates.active[bucket.name]
                    continue
                shares += 1
            used_often.append(bucket)
        return used_often

    def _start_over(self, node: int) -> None:
        """Hold nothing: the shares were those of another number."""
        self._lease.end()
        self._node = node
        now = self._clock.monotonic()
        held: list[Divided] = [*self._limiters, *self._rates.active.values()]
        for each in held:
            each.resize(0.0, now)

    async def _record_throttle(self, limiter: DividedLimiter) -> None:
        """Record for the other nodes that upstream has lowered or paused a rate."""
        if limiter.is_recorded:
            return
        limiter.is_recorded = True
        seconds = limiter.rate.paused_seconds(self._clock.monotonic())
        try:
            await self._store.record_throttle(self._node, limiter.name, limiter.whole_rate, seconds)
        except GatewayError:
            limiter.is_recorded = False
            raise
        self._news.tell(Topic.LIMITS, limiter.name)

    def _learn(self, each: Divided, known: KnownRates, now: float) -> None:
        """Hold no more than the store knows of, and adopt the rate that upstream allowed other nodes."""
        found = known.rates.get(each.name)
        held = next((held.share for held in found.holdings if held.node == self._node), 0.0) if found else 0.0
        if held < each.share:
            each.resize(held, now)
        if found is None:
            return
        rate = found.rate
        if isinstance(each, DividedBucket):
            fresh = filled(rate, each.rate, known.at)
            each.see(Seen(min(1.0, rate.free + found.ended), fresh.tokens), now)
        elif isinstance(each, DividedLimiter) and rate.throttles != self._throttles.get(each.name, 0):
            self._throttles[each.name] = rate.throttles
            if rate.throttled_by != self._node and rate.allowed is not None:
                paused_seconds = max(0.0, rate.paused_until - known.at)
                each.adopt(rate.allowed, paused_seconds, known.at - rate.throttled_at, now)

    async def _exchange(self, divided: Sequence[Divided], known: KnownRates, now: float) -> None:
        """Give back what is too much, ask for what is missing, and record the demand."""
        asked: list[tuple[Divided, Exchange]] = []
        news: set[str] = set()
        for each in divided:
            found = known.rates.get(each.name)
            need = self._need(each, known.nodes, now)
            if isinstance(each, DividedBucket) and found is not None and is_alone(need, found, self._node):
                continue
            decision = decide(need, found, self._node, known.nodes)
            if isinstance(each, DividedLimiter):
                each.weigh(decision.flows)
            if decision.is_short:
                news.add(each.name)
            if not decision.is_step:
                continue
            returned = each.resize(decision.kept, now) if decision.kept < each.share else 0.0
            if decision.kept < need.share:
                news.add(each.name)
            if isinstance(each, DividedBucket):
                each.is_recorded = bool(need.demand)
            self._number += 1
            asked.append(
                (
                    each,
                    Exchange(
                        name=each.name,
                        rate=need.rate,
                        number=self._number,
                        kept=decision.kept,
                        returned=returned,
                        wanted=decision.wanted,
                        reserve=need.reserve,
                        demand=need.demand,
                    ),
                )
            )
        if asked:
            granted = await self._store.exchange_shares(self._node, [exchange for _, exchange in asked])
            now = self._clock.monotonic()
            for (each, _), given in zip(asked, granted, strict=True):
                if given.share > each.share:
                    each.resize(given.share, now, given.tokens)
        for name in news:
            self._news.tell(Topic.LIMITS, name)

    def _need(self, each: Divided, nodes: int, now: float) -> Need:
        """Return what this node needs of a rate."""
        if isinstance(each, DividedLimiter):
            return Need(
                rate=each.whole_rate,
                share=each.share,
                demand=each.demand(now),
                weights=each.weights,
                is_standing=True,
            )
        assert isinstance(each, DividedBucket)
        is_idle = now - each.used_at > _IDLE_SECONDS or not is_divisible(each.rate, nodes)
        return Need(
            rate=each.rate,
            share=each.share,
            demand={} if is_idle else {"": each.demand(now)},
            reserve=RESERVE if nodes > 1 else 0.0,
            is_idle=is_idle,
        )

    async def _take_turns(self, limiter: DividedLimiter) -> None:
        """Take tokens for calls that wait for a rate that is not divided."""
        limiter.drop_unused()
        count = min(len(limiter) - limiter.rate.granted, _TURNS_AT_ONCE)
        if count > 0 and limiter.rate.needs_turn and not limiter.rate.paused_seconds(self._clock.monotonic()):
            limiter.grant(
                await self._store.take_turns(self._node, limiter.name, limiter.whole_rate, limiter.weights, count)
            )
