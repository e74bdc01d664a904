"""Protocols around rate limits: permits for calls upstream, and observers that count waits and refusals."""

from typing import Protocol

from gateway.domain.upstream_response import Answer


class CallLimiter(Protocol):
    """Limit the rate of calls upstream. The HTTP client asks for a permit before each call and reports the response."""

    def take(self, operation: str) -> bool:
        """Take a permit without waiting; return `False` if none is available.

        Always `True` for creates: they took their permit from `CreateLimiter`.
        """
        ...

    async def permit(self, operation: str) -> None:
        """Wait for a permit. Raise `RateLimited` on timeout; the call must then not be sent."""
        ...

    def observe_response(self, operation: str, answer: Answer) -> None:
        """Adapt the rate to upstream's response: its rate-limit headers and 429s."""
        ...


class CreateLimiter(Protocol):
    """Limit the rate of creates. The permit is taken before anything is sent, while the create can still be dropped."""

    async def create_turn(self, operation: str, team: str, until: float, *, returned: bool = False) -> bool:
        """Wait for a permit until `until` (monotonic time); return whether the create had to wait.

        `returned` is for a create that upstream refused with a 429: it goes ahead of the team's other creates. Raise
        `RateLimited` on timeout, `UpstreamUnavailable` if the gateway shuts down meanwhile.
        """
        ...

    def give_back(self, operation: str) -> None:
        """Return an unused permit."""
        ...


class AccountObserver(Protocol):
    """Counts waits and refusals at the account's rates. `lane` is `creates` or `requests`."""

    def permit_waited(self, lane: str, seconds: float) -> None:
        """Count a call that waited for its permit, and for how long."""
        ...

    def permit_refused(self, lane: str, reason: str) -> None:
        """Count a call that got no permit. `reason` is `timeout` or `queue_full`."""
        ...

    def account_throttled(self, lane: str) -> None:
        """Count a 429 from upstream."""
        ...


class RateObserver(Protocol):
    """Counts requests over a rate of their team, key, user or address."""

    def request_refused(self, of: str) -> None:
        """Count a refused request. `of` is `team`, `key`, `user` or `address`."""
        ...

    def create_held(self, result: str, seconds: float) -> None:
        """Count a create over a rate. `result` is `admitted`, `refused` or `full` (no room in the hold queue)."""
        ...
