"""Several nodes that share rates, in one process: a store in memory, news, and memberships that a test ends."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gateway.domain.ports.clock import Clock
from gateway.domain.rates import Rate
from gateway.errors import StoreUnavailable
from gateway.nodes.membership import Membership
from gateway.nodes.news import Listener, News, Topic
from gateway.throttling.ports import DividedRates
from gateway.throttling.rules import divided_rate
from gateway.throttling.rules.divided_rate import (
    DividedRate,
    Exchange,
    Granted,
    Holding,
    KnownRate,
    KnownRates,
    Seen,
    Taken,
    Want,
)
from gateway.throttling.rules.rate_step import RateStep

LEASE_SECONDS = 10.0


class MemoryRates:
    """The role `DividedRates` in memory. Its clock is far from that of the nodes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.leases: dict[int, float] = {}
        """Until when each node's lease is valid, by `now`."""
        self._renewed: dict[int, float] = {}
        """When each was renewed, by a clock that does not jump: a node is ended when it has not been for so long."""
        self.jumped = 0.0
        """By how much the store's clock has jumped."""
        self.rates: dict[str, DividedRate] = {}
        self.holdings: dict[tuple[str, int], Holding] = {}
        self.is_away = False
        self.loses_answer: Callable[[], bool] = lambda: False
        """Whether a step is done and its answer is lost."""
        self.steps: list[str] = []
        self.names: set[str] = set()
        """The names in the last read."""

    @property
    def now(self) -> float:
        """The time by the store's clock."""
        return self._clock.monotonic() + 1e9 + self.jumped

    def renew(self, node: int) -> None:
        """Renew a node's lease."""
        self.leases[node] = self.now + LEASE_SECONDS
        self._renewed[node] = self._clock.monotonic()

    def _load(self, node: int, names: Sequence[str], step: str) -> RateStep:
        self.steps.append(step)
        if self.is_away:
            raise StoreUnavailable("The store is away.")
        now = self._clock.monotonic()
        living = {each for each in self.leases if now < self._renewed[each] + LEASE_SECONDS}
        rates, ended = {}, []
        for name in names:
            if name in self.rates:
                of_name = [held for (of, _), held in self.holdings.items() if of == name]
                gone = [held for held in of_name if held.node not in living and held.node != node]
                ended += [(name, held) for held in gone]
                rates[name] = KnownRate(
                    self.rates[name], [held for held in of_name if held not in gone], sum(held.share for held in gone)
                )
        left = self.leases[node] - self.now if node in living else 0.0
        return RateStep(node, KnownRates(left, len(living), self.now, rates), ended)

    def _change(self, node: int, rates: Mapping[str, Rate], step: str) -> RateStep | None:
        for name, rate in rates.items():
            self.rates.setdefault(name, divided_rate.new(name, rate, self.now))
        held = self._load(node, list(rates), step)
        if held.known.lease_seconds <= 0:
            return None
        held.fill(rates)
        return held

    def _save(self, step: RateStep) -> None:
        for name, holding in step.ended:
            del self.holdings[name, holding.node]
        for rate in step.changed:
            self.rates[rate.name] = rate
        for name, holding in step.holdings:
            self.holdings[name, holding.node] = holding
        if self.loses_answer():
            raise StoreUnavailable("The connection was lost during a commit.")

    async def read_rates(self, node: int, names: Sequence[str]) -> KnownRates:
        """Read rates, and the lease of the node."""
        self.names = set(names)
        return self._load(node, names, "read").known

    async def exchange_shares(self, node: int, asked: Sequence[Exchange]) -> list[Granted]:
        """Give back and take shares."""
        step = self._change(node, {each.name: each.rate for each in asked}, "exchange")
        if step is None:
            return [Granted(0.0)] * len(asked)
        granted = [step.exchange(each) for each in asked]
        self._save(step)
        return granted

    async def take_permits(self, node: int, asked: Sequence[Sequence[Want]]) -> list[Taken]:
        """Take single tokens of what no node holds."""
        step = self._change(node, {want.name: want.rate for wanted in asked for want in wanted}, "take")
        if step is None:
            return [Taken([Seen(0.0, 0.0)] * len(wanted), 0, 1.0) for wanted in asked]
        taken = step.take_permits(asked)
        self._save(step)
        return taken

    async def take_turns(self, node: int, name: str, rate: Rate, weights: Mapping[str, float], count: int) -> int:
        """Take tokens while it is the node's turn."""
        step = self._change(node, {name: rate}, "turn")
        if step is None:
            return 0
        taken = step.take_turns(name, weights, count)
        self._save(step)
        return taken

    async def record_throttle(self, node: int, name: str, rate: Rate, seconds: float) -> None:
        """Record what upstream said."""
        step = self._change(node, {name: rate}, "throttle")
        if step is not None:
            step.throttle(name, rate, seconds)
            self._save(step)

    async def forget_rates(self, idle_seconds: float, limit: int) -> int:
        """Forget nothing."""
        self.steps.append("forget")
        return 0


class MemoryNews:
    """News that reach the other nodes at once."""

    waiting = 0
    is_listening = is_shared = True

    def __init__(self, hub: "list[MemoryNews]") -> None:
        self._hub = hub
        self._listeners: list[tuple[Topic, Listener]] = []
        hub.append(self)

    def tell(self, topic: Topic, name: str) -> None:
        """Tell the other nodes."""
        for other in self._hub:
            if other is not self:
                other.hear(topic, [name])

    def hear(self, topic: Topic, names: Sequence[str] | None) -> None:
        """Call the listeners of a topic."""
        for of, listener in self._listeners:
            if of == topic:
                listener(names)

    def add_listener(self, topic: Topic, listener: Listener) -> None:
        """Call `listener` with the names that other nodes tell of."""
        self._listeners.append((topic, listener))


class TestMembership:
    """A node whose lease a test renews and ends."""

    __test__ = False

    def __init__(self, number: int) -> None:
        self.number = number
        self.has_left = False
        self._lost: list[Callable[[], None]] = []
        self._joined: list[Callable[[], None]] = []

    def is_alive(self) -> bool:
        """Return true until it has left: else only the store knows better."""
        return not self.has_left

    def may_send(self) -> bool:
        """Return true."""
        return True

    def is_shut_out(self) -> bool:
        """Return false."""
        return False

    def is_leader(self) -> bool:
        """Return false."""
        return False

    def add_lost_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the lease is lost."""
        self._lost.append(listener)

    def add_joined_listener(self, listener: Callable[[], None]) -> None:
        """Call `listener` when it has joined again."""
        self._joined.append(listener)

    def lose(self) -> None:
        """Lose the lease."""
        self.has_left = True
        for listener in self._lost:
            listener()

    def join(self, number: int) -> None:
        """Join under a new number."""
        self.number, self.has_left = number, False
        for listener in self._joined:
            listener()


if TYPE_CHECKING:
    _: type[DividedRates] = MemoryRates
    _news: type[News] = MemoryNews
    _membership: type[Membership] = TestMembership
