"""Token buckets: a rate per minute with a burst (docs/architecture.md, Limits).

The state of a bucket is one number, the time at which it will be full again: the theoretical arrival time of the
generic cell rate algorithm (ITU-T I.371, annex A), which needs no timer and no lock. Times are from any one clock. A
bucket without a stored state is full.
"""

import math

import msgspec

FULL = 0.0
"""The state of an unused bucket."""

_BURSTS_PER_MINUTE = 6
_SECONDS = 60.0
# Epoch times as floats have a resolution of 2e-7 s. Differences below this fraction of a token are rounding errors.
_ROUNDING = 1e-6


class Rate(msgspec.Struct, frozen=True):
    """A rate per minute, of which `burst` can be taken at once."""

    per_minute: float
    burst: int

    @classmethod
    def of(cls, per_minute: float, burst: int | None = None) -> "Rate":
        """Return a rate. The default burst is a sixth of the rate per minute, at least 1."""
        return cls(per_minute, burst or max(1, math.floor(per_minute / _BURSTS_PER_MINUTE)))

    @property
    def interval(self) -> float:
        """Seconds between two tokens."""
        return _SECONDS / self.per_minute

    @property
    def tolerance(self) -> float:
        """Seconds until an empty bucket is full."""
        return self.interval * self.burst


def wait(full_at: float, rate: Rate, now: float, count: int = 1) -> float:
    """Return the seconds until `count` tokens are available; infinity if `count` exceeds the burst."""
    if count > rate.burst:
        return math.inf
    interval = _SECONDS / rate.per_minute
    seconds = max(full_at, now) + interval * count - interval * rate.burst - now
    return seconds if seconds > interval * _ROUNDING else 0.0


def take(full_at: float, rate: Rate, now: float, count: int = 1) -> float:
    """Return the bucket's state after taking `count` tokens. Does not check that they are available: see `wait`."""
    return max(full_at, now) + _SECONDS / rate.per_minute * count


def remaining(full_at: float, rate: Rate, now: float) -> int:
    """Return the number of available tokens."""
    interval = _SECONDS / rate.per_minute
    left = (interval * rate.burst - max(0.0, full_at - now)) / interval
    return max(0, math.floor(left + _ROUNDING))


def reset_seconds(full_at: float, now: float) -> float:
    """Return the seconds until the bucket is full."""
    return max(0.0, full_at - now)
