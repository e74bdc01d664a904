"""The one account that all share: turns to call upstream, and what upstream says of its limits."""

from typing import Protocol

from gateway.domain.upstream_response import Answer


class CallLimiter(Protocol):
    """Whoever paces the calls upstream. Each call asks before it goes, and tells what came of it."""

    def take(self, operation: str) -> bool:
        """Take a turn if there is one to be had at once. Creates have theirs already: see `CreateLimiter`."""
        ...

    async def permit(self, operation: str) -> None:
        """Wait for a turn. Raise `RateLimited` when it does not come in time; nothing may then be sent."""
        ...

    def observe_response(self, operation: str, answer: Answer) -> None:
        """Learn from an answer of upstream."""
        ...


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


class AccountObserver(Protocol):
    """Whoever counts how the account is shared. `lane` is `creates` or `requests`."""

    def permit_waited(self, lane: str, seconds: float) -> None:
        """Note a turn that had to be waited for."""
        ...

    def permit_refused(self, lane: str, reason: str) -> None:
        """Note somebody who got no turn: `timeout`, or `queue_full`."""
        ...

    def account_throttled(self, lane: str) -> None:
        """Note a 429 of upstream."""
        ...


class RateObserver(Protocol):
    """Whoever counts requests over a rate of their team, key, user or address."""

    def request_refused(self, of: str) -> None:
        """Note a refusal; `of` is `team`, `key`, `user` or `address`."""
        ...

    def create_held(self, result: str, seconds: float) -> None:
        """Note a create that was held: `admitted`, `refused`, or `full` when there was no room to hold it."""
        ...
