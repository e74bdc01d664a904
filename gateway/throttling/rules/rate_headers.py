"""Rate-limit response headers: how many requests a caller may still make.

`RateLimit-Policy` and `RateLimit` as in draft-ietf-httpapi-ratelimit-headers-11 (structured fields, RFC 9651):

    RateLimit-Policy: "team-requests";q=600;w=60, "user-requests";q=60;w=60
    RateLimit: "user-requests";r=9;t=1

`q` requests may be made in `w` seconds; `r` may be made now, and no more than those within `t` seconds.
`RateLimit-Policy` lists every rate that applies; `RateLimit` shows the one with the fewest requests left. Replicate's
own headers `ratelimit-remaining` and `ratelimit-reset` are sent too (docs/replicate-api.md, Rate limits).

Limits on runs and budgets appear only in the response that they refuse. `"team-budget-usd-per-day";q=2000000;w=86400`
counts micro-dollars. A limit without a time window has no `w`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.domain import rates
from gateway.domain.limits import SubjectKind
from gateway.throttling.rules.request_rates import NAME, Bucket

_WINDOWS = {"_per_minute": 60, "_per_day": 86_400}
_LARGEST = 999_999_999_999_999
"""Integers of structured fields have at most 15 digits (RFC 9651, 3.3.1)."""


def policy(buckets: Sequence[Bucket]) -> str:
    """Return the value of `RateLimit-Policy`."""
    return ", ".join([bucket.policy for bucket in buckets])


def state(buckets: Sequence[Bucket], now: float) -> tuple[str, int, int]:
    """Return the label of the bucket with the fewest requests left, that number, and the seconds until it grows.

    Of equal buckets the narrowest, which is listed last, counts.
    """
    tightest, left = buckets[0], rates.remaining(buckets[0].full_at, buckets[0].rate, now)
    for bucket in buckets[1:]:
        other = rates.remaining(bucket.full_at, bucket.rate, now)
        if other <= left:
            tightest, left = bucket, other
    more = min(left + 1, tightest.rate.burst)
    wait = rates.wait(tightest.full_at, tightest.rate, now, more)
    return tightest.label, left, max(1, math.ceil(wait))


class Refusing(NamedTuple):
    """The headers of a limit that refuses a request."""

    policy: str
    """For `RateLimit-Policy`."""
    state: str
    """For `RateLimit`."""
    seconds: int | None
    """For `ratelimit-reset`; `None` if no time helps."""


def refusing(limit: Mapping[str, object], seconds: int | None) -> Refusing | None:
    """Return the headers of a limit that refuses a request, for a retry in `seconds`; `None` if no retry can pass.

    `limit` is the JSON form of `refusals.shown`. Return `None` for request rates: every response shows those already.
    """
    name, of = str(limit["name"]), limit["of"]
    if name == NAME and of != SubjectKind.ACCOUNT:
        return None
    # A monthly budget gets no window: months differ in length.
    window = next((f";w={length}" for end, length in _WINDOWS.items() if name.endswith(end)), "")
    label = f"{of}-{name.removesuffix('_per_minute').replace('_', '-')}"
    quota, left = _whole(limit, "limit"), _whole(limit, "remaining")
    time = "" if seconds is None else f";t={seconds}"
    return Refusing(f'"{label}";q={quota}{window}', f'"{label}";r={left}{time}', seconds)


def _whole(limit: Mapping[str, object], name: str) -> int:
    amount = limit.get(f"{name}_microusd", limit[name])
    assert isinstance(amount, int | float)
    return min(int(amount), _LARGEST)
