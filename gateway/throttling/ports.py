"""The permits that creates need from the account's rate limit, and rates that several nodes share in the store."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.domain.hold import Hold
from gateway.domain.rates import Rate
from gateway.throttling.rules.divided_rate import Exchange, Granted, KnownRates, Taken, Want


class CreateLimiter(Protocol):
    """Limit the rate of creates. The permit is taken before anything is sent, while the create can still be dropped."""

    def take_create(self, operation: str) -> bool:
        """Take a permit without waiting; return `False` if none is available, or others are waiting."""
        ...

    async def create_permit(
        self, operation: str, team: str, until: float, *, returned: bool = False, hold: Hold | None = None
    ) -> bool:
        """Wait for a permit until `until` (monotonic time); return whether the create had to wait.

        `returned` is for a create that upstream refused with a 429: it goes ahead of the team's other creates. The wait
        is added to `hold`. Raise `RateLimited` on timeout, and at once if no permit can come in time;
        `UpstreamUnavailable` if the gateway shuts down meanwhile.
        """
        ...

    def give_back(self, operation: str) -> None:
        """Return an unused permit."""
        ...


class DividedRates(Protocol):
    """Rates that the nodes of a store share. Where one process serves from the store, it has every rate for itself.

    All times are by the store's clock, and every operation is one step. A node whose lease is not valid gets nothing.
    Whatever steps fail, are repeated or come late, the nodes together never take more than the rates allow: see
    `rules/divided_rate.py`.
    """

    async def read_rates(self, node: int, names: Sequence[str]) -> KnownRates:
        """Read rates, and the lease of the node."""
        ...

    async def exchange_shares(self, node: int, asked: Sequence[Exchange]) -> list[Granted]:
        """Give back and take shares. Frees those of nodes whose leases have ended."""
        ...

    async def take_permits(self, node: int, asked: Sequence[Sequence[Want]]) -> list[Taken]:
        """Take single tokens of what no node holds, for several requests in turn: for each all of them, or none."""
        ...

    async def take_turns(self, node: int, name: str, rate: Rate, weights: Mapping[str, float], count: int) -> int:
        """Take up to `count` tokens of what no node holds, while it is the node's turn; return how many."""
        ...

    async def record_throttle(self, node: int, name: str, rate: Rate, seconds: float) -> None:
        """Record what upstream said: the rate that it allows, and for how long it allows nothing."""
        ...

    async def forget_rates(self, idle_seconds: float, limit: int) -> int:
        """Delete up to `limit` rates that nobody holds or has used for so long and whose buckets are full."""
        ...
