"""The one account that all share: turns to call upstream, and what upstream says of its limits."""

from typing import Protocol


class CreateLimiter(Protocol):
    """Whoever gives creates their turn. It is taken before anything is sent, where it can still be given up."""

    async def create_turn(self, operation: str, team: str, until: float, *, returned: bool = False) -> bool:
        """Wait for a turn, at most until then by the monotonic clock; say whether it had to be waited for.

        `returned` is for a create that upstream refused with a 429: it goes before the team's others. Raise
        `RateLimited` when there is no turn in time, `UpstreamUnavailable` when the gateway shuts down meanwhile.
        """
        ...

    def give_back(self, operation: str) -> None:
        """Return a turn that was not used."""
        ...
