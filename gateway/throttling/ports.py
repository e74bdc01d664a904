"""The permits that creates need from the account's rate limit."""

from typing import Protocol


class CreateLimiter(Protocol):
    """Limit the rate of creates. The permit is taken before anything is sent, while the create can still be dropped."""

    async def create_permit(self, operation: str, team: str, until: float, *, returned: bool = False) -> bool:
        """Wait for a permit until `until` (monotonic time); return whether the create had to wait.

        `returned` is for a create that upstream refused with a 429: it goes ahead of the team's other creates. Raise
        `RateLimited` on timeout, `UpstreamUnavailable` if the gateway shuts down meanwhile.
        """
        ...

    def give_back(self, operation: str) -> None:
        """Return an unused permit."""
        ...
