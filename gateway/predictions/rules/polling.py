"""How often a run is polled. See docs/architecture.md, Following a run."""

import math

_SHORTEST_INTERVAL = 0.02
_SHARE_OF_AGE = 0.08
_LONGEST_INTERVAL = 10.0


def next_poll_seconds(age: float, active: int, requests_per_minute: float) -> float:
    """Return the seconds until the next poll of a run of this age.

    The interval grows with the age, so that the end is seen within about a tenth of the run's duration. Polls of all
    `active` runs together use at most half of the account's rate of requests.
    """
    fair = active * 60.0 / max(requests_per_minute / 2, 1.0)
    return max(min(_LONGEST_INTERVAL, max(_SHORTEST_INTERVAL, age * _SHARE_OF_AGE)), fair)


class FirstPolls:
    """First polls of runs that another process has followed: one after the other, at half of the account's rate.

    They may have ended long ago, so they do not wait for an interval of their age.
    """

    def __init__(self) -> None:
        self._last = -math.inf

    def next(self, now: float, requests_per_minute: float) -> float:
        """Return the seconds until the first poll of one more run."""
        self._last = max(now, self._last + 60.0 / max(requests_per_minute / 2, 1.0))
        return self._last - now
