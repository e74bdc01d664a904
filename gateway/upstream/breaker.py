"""A circuit breaker: after consecutive failures no requests are sent for a while, then one as a trial.

It has no I/O; time is an argument. The well-known packages read the clock themselves and wrap the call. Here the
decision is a value, so that tests can control the time, and a refused create is known not to have been sent.
"""

from enum import IntEnum


class BreakerState(IntEnum):
    """The state of a breaker, with the values of the metric."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Opens after `threshold` consecutive failures; after `open_seconds` allows one request as a trial."""

    def __init__(self, *, threshold: int, open_seconds: float) -> None:
        self._threshold = threshold
        self._open_seconds = open_seconds
        self._failures = 0
        self._opened_at: float | None = None
        self._trial_at: float | None = None

    def state(self, now: float) -> BreakerState:
        """Return the state at a time."""
        if self._opened_at is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._opened_at + self._open_seconds else BreakerState.HALF_OPEN

    def refuses_for(self, now: float) -> float:
        """Return 0.0 if a request may be sent, else the seconds after which to try again. Call before each request.

        In the half-open state the first allowed request is the trial. A trial that reports no result expires after
        `open_seconds`.
        """
        if self._opened_at is None:
            return 0.0
        remaining = self._opened_at + self._open_seconds - now
        if remaining > 0:
            return remaining
        if self._trial_at is not None and now < self._trial_at + self._open_seconds:
            return self._trial_at + self._open_seconds - now
        self._trial_at = now
        return 0.0

    def succeeded(self) -> None:
        """Report that upstream responded. Closes the breaker."""
        self._failures = 0
        self._opened_at = self._trial_at = None

    def failed(self, now: float) -> None:
        """Report that upstream did not respond, or responded with a server error."""
        self._failures += 1
        if self._trial_at is not None or self._failures >= self._threshold:
            self._opened_at, self._trial_at = now, None
