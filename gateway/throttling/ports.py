"""The permits that creates need from the account's rate limit."""

from typing import Protocol

from gateway.domain.hold import Hold


class CreateLimiter(Protocol):
    """Limit the rate of creates. The permit is taken before anything is sent, while the create can still be dropped."""

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
