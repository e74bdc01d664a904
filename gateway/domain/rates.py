"""Rates: so many a minute, refilled evenly, with a burst (docs/architecture.md, Limits).

A bucket is kept as one number, the time at which it will be full again: the theoretical arrival time of the generic
cell rate algorithm (ITU-T I.371, annex A), which needs no timer and no lock. Times are epoch seconds, or of any clock
that all calls share. A bucket that is not known is full.
"""

import math

import msgspec

FULL = 0.0
"""The state of a bucket from which nothing has been taken."""

_BURSTS_PER_MINUTE = 6
_SECONDS = 60.0
# Times of today have a resolution of 2e-7 s: what is a whole but for that is a whole.
_ROUNDING = 1e-6


class Rate(msgspec.Struct, frozen=True):
    """So many a minute; `burst` of them may come at once."""

    per_minute: float
    burst: int

    @classmethod
    def of(cls, per_minute: float, burst: int | None = None) -> "Rate":
        """Return the rate; unless it is given, a sixth of a minute's worth may come at once, and at least one."""
        return cls(per_minute, burst or max(1, math.floor(per_minute / _BURSTS_PER_MINUTE)))

    @property
    def interval(self) -> float:
        """Seconds in which one more comes in."""
        return _SECONDS / self.per_minute

    @property
    def tolerance(self) -> float:
        """Seconds in which an empty bucket fills."""
        return self.interval * self.burst


def wait(full_at: float, rate: Rate, now: float, count: int = 1) -> float:
    """Return after how many seconds `count` may be taken: 0 if now, infinity if that is more than a burst."""
    if count > rate.burst:
        return math.inf
    seconds = max(full_at, now) + rate.interval * count - rate.tolerance - now
    return seconds if seconds > rate.interval * _ROUNDING else 0.0


def take(full_at: float, rate: Rate, now: float, count: int = 1) -> float:
    """Return the bucket's state after `count` have been taken; whether they may be is for `wait` to say."""
    return max(full_at, now) + rate.interval * count


def remaining(full_at: float, rate: Rate, now: float) -> int:
    """Return how many may be taken now."""
    left = (rate.tolerance - max(0.0, full_at - now)) / rate.interval
    return max(0, math.floor(left + _ROUNDING))


def reset_seconds(full_at: float, now: float) -> float:
    """Return in how many seconds the bucket is full again."""
    return max(0.0, full_at - now)
