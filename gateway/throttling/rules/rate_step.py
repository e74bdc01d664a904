"""What one step of the store does with the rates that it has loaded: the rules, and what is to be saved."""

from collections.abc import Iterable, Mapping, Sequence

from gateway.domain.rates import Rate
from gateway.throttling.rules import divided_rate
from gateway.throttling.rules.divided_rate import DividedRate, Exchange, Granted, Holding, KnownRates, Seen, Taken, Want


class RateStep:
    """Rates as one step has them. Call `fill` before anything else.

    `ended` are the shares of nodes that have ended.
    """

    def __init__(self, node: int, known: KnownRates, ended: Iterable[tuple[str, Holding]]) -> None:
        self.node = node
        self.known = known
        self._rates = {name: each.rate for name, each in known.rates.items()}
        self._own = {
            name: next((each for each in rate.holdings if each.node == node), Holding(node=node))
            for name, rate in known.rates.items()
        }
        self.ended = list(ended)
        """Shares to delete."""
        self._changed: set[str] = set()
        self._exchanged: set[str] = set()

    def fill(self, rates: Mapping[str, Rate]) -> None:
        """Bring buckets up to now, and free the shares of nodes that have ended."""
        self._rates = {
            name: divided_rate.filled(each, rates[name], self.known.at) for name, each in self._rates.items()
        }
        for name, holding in self.ended:
            self._rates[name] = divided_rate.without(self._rates[name], [holding])
            self._changed.add(name)

    def exchange(self, asked: Exchange) -> Granted:
        """Carry out an exchange."""
        name = asked.name
        self._rates[name], self._own[name], granted = divided_rate.exchange(self._rates[name], self._own[name], asked)
        self._changed.add(name)
        self._exchanged.add(name)
        return granted

    def take_all(self, wanted: Sequence[Want]) -> tuple[int | None, float]:
        """Take a token of each or none; return which rate refuses, and for how long."""
        waits = [
            divided_rate.wait(self._rates[want.name], self.known.at, want.spare) if want.count > 0 else 0.0
            for want in wanted
        ]
        seconds = max(waits, default=0.0)
        if seconds > 0.0:
            return waits.index(seconds), seconds
        for want in wanted:
            self._rates[want.name] = divided_rate.take(self._rates[want.name], want.count)
            self._changed.add(want.name)
        return None, 0.0

    def take_permits(self, asked: Sequence[Sequence[Want]]) -> list[Taken]:
        """Take tokens for several requests in turn."""
        refusals = [self.take_all(wanted) for wanted in asked]
        return [
            Taken([self.seen(want.name) for want in wanted], *refusal)
            for wanted, refusal in zip(asked, refusals, strict=True)
        ]

    def take_turns(self, name: str, weights: Mapping[str, float], count: int) -> int:
        """Take tokens while it is the node's turn; return how many."""
        others = [each for each in self.known.rates[name].holdings if each.node != self.node]
        self._changed.add(name)
        self._exchanged.add(name)
        for taken in range(count):
            self._rates[name], self._own[name], seconds = divided_rate.take_turn(
                self._rates[name], [self._own[name], *others], self.node, weights, self.known.at
            )
            if seconds > 0.0:
                return taken
        return count

    def throttle(self, name: str, rate: Rate, seconds: float) -> None:
        """Record what upstream said."""
        self._rates[name] = divided_rate.throttled(self._rates[name], rate, seconds, self.node, self.known.at)
        self._changed.add(name)

    def seen(self, name: str) -> Seen:
        """Return what no node holds of a rate."""
        return Seen(self._rates[name].free, self._rates[name].tokens)

    @property
    def changed(self) -> list[DividedRate]:
        """The rates to save, by name."""
        return [self._rates[name] for name in sorted(self._changed)]

    @property
    def holdings(self) -> list[tuple[str, Holding]]:
        """The node's shares to save, by name."""
        return [(name, self._own[name]) for name in sorted(self._exchanged)]
