"""A node's share of a token bucket: a bucket of its own, with its share of the rate and of the burst.

The state is the time at which the bucket will be full, as in `domain/rates.py`. A share changes only together with its
tokens (`resize`): a smaller share keeps its tokens in proportion, and a larger one starts with those that came with it.
So the tokens of all shares together are those of one bucket, and the nodes together never exceed the rate. Pure: times
are arguments.
"""

import math

from gateway.domain.rates import Rate

_ROUNDING = 1e-6


def level(full_at: float, rate: Rate, share: float, now: float) -> float:
    """Return the tokens in the bucket, with fractions."""
    return max(0.0, share * (rate.burst - max(0.0, full_at - now) / rate.interval))


def wait(full_at: float, rate: Rate, share: float, now: float, spare: float = 0.0) -> float:
    """Return the seconds until there is a token beyond `spare`; infinity if the share is too small for one."""
    needed = 1.0 + spare
    if share * rate.burst < needed - _ROUNDING:
        return math.inf
    missing = needed - level(full_at, rate, share, now)
    return missing * rate.interval / share if missing > _ROUNDING else 0.0


def take(full_at: float, rate: Rate, share: float, now: float, count: float = 1.0) -> float:
    """Return the state after taking tokens. Does not check that they are there: see `wait`."""
    return max(full_at, now) + rate.interval / share * count


def resize(
    full_at: float, rate: Rate, share: float, now: float, *, to: float, tokens: float = 0.0
) -> tuple[float, float]:
    """Return the state for a share of `to`, and the tokens that were taken out.

    A smaller share gives up its tokens in proportion; `tokens` are put into a larger one.
    """
    held = level(full_at, rate, share, now)
    given_up = held * (1 - to / share) if to < share else 0.0
    held = min(held - given_up + tokens, to * rate.burst)
    return at_level(held, rate, to, now), given_up


def at_level(tokens: float, rate: Rate, share: float, now: float) -> float:
    """Return the state of a bucket with `tokens`."""
    if share <= 0.0:
        return now + rate.tolerance
    return now + max(0.0, rate.burst - tokens / share) * rate.interval
