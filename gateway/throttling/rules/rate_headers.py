"""The headers that tell a caller how many requests it may still make.

`RateLimit-Policy` and `RateLimit` as in draft-ietf-httpapi-ratelimit-headers-11 (structured fields, RFC 9651):

    RateLimit-Policy: "team-requests";q=600;w=60, "user-requests";q=60;w=60
    RateLimit: "user-requests";r=9;t=1

`q` requests may be made in `w` seconds; `r` may be made now, and no more than those within `t` seconds. The policies
are all that apply; the limit is the tightest of them. Beside them Replicate's own, in its spelling
(docs/replicate-api.md, Rate limits):
`ratelimit-remaining` and `ratelimit-reset`.

Other limits, on runs and budgets, are named where they refuse: `"team-budget-usd-per-day";q=2000000;w=86400` counts
micro-dollars, and what is not counted by time has no `w`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.domain import rates
from gateway.domain.limits import SubjectKind
from gateway.throttling.rules.request_rates import NAME, Bucket

_WINDOWS = {"_per_minute": 60, "_per_day": 86_400}
_LARGEST = 999_999_999_999_999
"""Integers of structured fields have 15 digits."""


def policy(buckets: Sequence[Bucket]) -> str:
    """Write `RateLimit-Policy`: each bucket knows its own part."""
    return ", ".join([bucket.policy for bucket in buckets])


def state(buckets: Sequence[Bucket], now: float) -> tuple[str, int, int]:
    """Return the tightest bucket's name, how many requests it has left, and for how many seconds no more than those."""
    tightest, left = buckets[0], rates.remaining(buckets[0].full_at, buckets[0].rate, now)
    for bucket in buckets[1:]:
        other = rates.remaining(bucket.full_at, bucket.rate, now)
        if other <= left:
            tightest, left = bucket, other
    more = min(left + 1, tightest.rate.burst)
    wait = rates.wait(tightest.full_at, tightest.rate, now, more)
    return tightest.label, left, max(1, math.ceil(wait))


class Refusing(NamedTuple):
    """A limit that refuses, as its headers have it."""

    policy: str
    state: str
    seconds: int


def refusing(limit: Mapping[str, object], seconds: int) -> Refusing | None:
    """Write the headers of a limit that is in the way (as answers show it), and when to come again.

    `None` for the request rates, which every answer tells of.
    """
    name, of = str(limit["name"]), limit["of"]
    if name == NAME and of != SubjectKind.ACCOUNT:
        return None
    # A month is not always as long.
    window = next((f";w={length}" for end, length in _WINDOWS.items() if name.endswith(end)), "")
    label = f"{of}-{name.removesuffix('_per_minute').replace('_', '-')}"
    quota, left = _whole(limit, "limit"), _whole(limit, "remaining")
    return Refusing(f'"{label}";q={quota}{window}', f'"{label}";r={left};t={seconds}', seconds)


def _whole(limit: Mapping[str, object], name: str) -> int:
    amount = limit.get(f"{name}_microusd", limit[name])
    assert isinstance(amount, int | float)
    return min(int(amount), _LARGEST)
