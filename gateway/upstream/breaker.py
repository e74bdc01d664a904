"""A circuit breaker: after a row of failures upstream is left alone for a while, then tried with one request.

Pure: time is an argument. (The well-known packages read the wall clock themselves and wrap the call; here the decision
must be a value, so that a fake clock can move it and a refused create is known never to have been sent.)
"""

from enum import IntEnum


class BreakerState(IntEnum):
    """As the metric shows it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class Breaker:
    """Counts failures in a row; opens at `threshold`; after `open_seconds` lets one request through as a trial."""

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
        """Ask before a request: 0.0 lets it go, else the seconds until another ask makes sense.

        In the half-open state the first asker becomes the trial. A trial that never reports ends by itself.
        """
        if self._opened_at is None:
            return 0.0
        closed_for = self._opened_at + self._open_seconds - now
        if closed_for > 0:
            return closed_for
        if self._trial_at is not None and now < self._trial_at + self._open_seconds:
            return self._trial_at + self._open_seconds - now
        self._trial_at = now
        return 0.0

    def succeeded(self) -> None:
        """Report that upstream answered."""
        self._failures = 0
        self._opened_at = self._trial_at = None

    def failed(self, now: float) -> None:
        """Report that upstream did not answer, or answered with a page of its edge."""
        self._failures += 1
        if self._trial_at is not None or self._failures >= self._threshold:
            self._opened_at, self._trial_at = now, None
