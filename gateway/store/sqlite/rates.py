"""Rates where one process serves from the store (the `DividedRates` role): it has them for itself."""

# ruff: noqa: ARG002  no other process asks for anything

import math
from collections.abc import Mapping, Sequence

from gateway.domain.rates import Rate
from gateway.throttling.rules.divided_rate import Exchange, Granted, KnownRates, Seen, Taken, Want


class OwnRates:
    """Every rate is this process's own."""

    async def read_rates(self, node: int, names: Sequence[str]) -> KnownRates:
        """Return a lease without an end, and no rates."""
        return KnownRates(math.inf, 1, 0.0, {})

    async def exchange_shares(self, node: int, asked: Sequence[Exchange]) -> list[Granted]:
        """Give all there is."""
        return [Granted(1.0, float(each.rate.burst)) for each in asked]

    async def take_permits(self, node: int, asked: Sequence[Sequence[Want]]) -> list[Taken]:
        """Give every token: the process counts them itself."""
        return [Taken([Seen(1.0, float(want.rate.burst)) for want in wanted]) for wanted in asked]

    async def take_turns(self, node: int, name: str, rate: Rate, weights: Mapping[str, float], count: int) -> int:
        """Give every token: the process counts them itself."""
        return count

    async def record_throttle(self, node: int, name: str, rate: Rate, seconds: float) -> None:
        """Do nothing: nobody else needs to know."""

    async def forget_rates(self, idle_seconds: float, limit: int) -> int:
        """Do nothing."""
        return 0
