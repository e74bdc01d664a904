"""What a node holds shares of: each of the account's rates, and the request rates that it uses often.

`share_exchange.py` divides them among the nodes.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from gateway.domain.ports.clock import Clock
from gateway.domain.rates import Rate
from gateway.domain.teams import Teams
from gateway.errors import UpstreamUnavailable
from gateway.runtime.live import LiveSettings
from gateway.throttling.fair_limiter import FairLimiter
from gateway.throttling.rules.adaptive_rate import LearnedRate
from gateway.throttling.rules.divided_learned_rate import DividedLearnedRate
from gateway.throttling.rules.division import LEAST_MEASURED_SECONDS, Demand, smoothed
from gateway.throttling.settings import Lane, ThrottlingSettings, weights_of
from gateway.throttling.share_lease import ShareLease

_NEGLIGIBLE = 0.01


class Divided(Protocol):
    """A rate that is divided among nodes, and this node's share of it."""

    @property
    def name(self) -> str:
        """Its name in the store."""
        ...

    @property
    def share(self) -> float:
        """The share of this node."""
        ...

    def resize(self, share: float, now: float, tokens: float = 0.0) -> float:
        """Change the share; return the tokens that were taken out of it."""
        ...


class DividedLimiter(FairLimiter):
    """One of the account's rates on one of several nodes: grants permits at the node's share.

    `asker` says on whose behalf the current call is made.
    """

    rate: DividedLearnedRate

    def __init__(
        self,
        lane: Lane,
        settings: LiveSettings[ThrottlingSettings],
        teams: LiveSettings[Teams],
        clock: Clock,
        *,
        lease: ShareLease,
        asker: Callable[[], str],
    ) -> None:
        self.lease = lease
        self._asker = asker
        self.is_recorded = True
        """Whether the store has what upstream said last."""
        self.on_throttled: Callable[[], None] = lambda: None
        self.lane = lane
        self.name = f"account:{lane}"
        self._used: Counter[str] = Counter()
        self._demand: dict[str, float] = {}
        self._measured_at = clock.monotonic()
        super().__init__(lane, settings, teams, clock)

    def _new_rate(self, configured: Rate) -> LearnedRate:
        return DividedLearnedRate(configured, self.lease.is_valid, self._throttled)

    def _throttled(self) -> None:
        self.is_recorded = False
        self.on_throttled()

    @property
    def whole_rate(self) -> Rate:
        """The rate that upstream allows all nodes together."""
        return self.rate.rate

    @property
    def share(self) -> float:
        """The share of this node."""
        return self.rate.share

    @property
    def weights(self) -> Mapping[str, float]:
        """The weights of the flows, over all nodes."""
        return weights_of(self._teams.value)

    def take(self) -> bool:
        """Take a permit without waiting; return `False` if none is available or others are already waiting."""
        is_taken = super().take()
        if is_taken:
            self._used[self._asker()] += 1
        return is_taken

    async def permit(self, name: str, until: float, *, returned: bool) -> bool:
        """Wait for a permit: see `FairLimiter`. Raise `UpstreamUnavailable` if the node has lost its lease."""
        if self.lease.is_fenced:
            raise _fenced()
        is_granted = await super().permit(name, until, returned=returned)
        if is_granted:
            self._used[name] += 1
        return is_granted

    def demand(self, now: float) -> Demand:
        """Return the calls per second by team: those made, falling within a second or two, and those that wait."""
        passed = now - self._measured_at
        if passed >= LEAST_MEASURED_SECONDS:
            for name in {*self._demand, *self._used}:
                self._demand[name] = smoothed(self._demand.get(name, 0.0), self._used[name], passed)
            self._demand = {name: amount for name, amount in self._demand.items() if amount > _NEGLIGIBLE}
            self._used.clear()
            self._measured_at = now
        demand = dict(self._demand)
        for name, waiting in self._queue.waiting_by_flow().items():
            demand[name] = demand.get(name, 0.0) + waiting
        return demand

    def fail_waiting(self) -> None:
        """Fail all waiters with `UpstreamUnavailable`: the node has lost its lease."""
        self._fail_waiting(_fenced())

    def resize(self, share: float, now: float, tokens: float = 0.0) -> float:
        """Change the share; return the tokens that were taken out of it."""
        given_up = self.rate.resize(share, now, tokens)
        self._changed.set()
        return given_up

    def grant(self, count: int) -> None:
        """Add tokens that the node got in its turn."""
        if count:
            self.rate.grant(count)
            self._changed.set()

    def drop_unused(self) -> None:
        """Drop tokens that nobody waits for any more."""
        if not self._queue.total:
            self.rate.granted = 0

    def weigh(self, flows: Demand) -> None:
        """Let each team with calls at this node go as often here as its part of the whole rate allows."""
        weights = self.weights
        active = {name: amount for name, amount in flows.items() if amount > 0.0 and name in weights}
        scale = sum(active.values()) / sum(weights[name] for name in active) if active else 1.0
        self._queue.reweigh({name: active.get(name, weight * scale) for name, weight in weights.items()})

    def adopt(self, rate: Rate, paused_seconds: float, seconds_since: float, now: float) -> None:
        """Take over what upstream said to another node."""
        self.rate.adopt(rate, paused_seconds, seconds_since, now)
        self._changed.set()


def _fenced() -> UpstreamUnavailable:
    return UpstreamUnavailable("The store has not confirmed this node's lease.", retry_after=1)
