"""The headers that tell a caller how many requests it may still make.

`RateLimit-Policy` and `RateLimit` as in draft-ietf-httpapi-ratelimit-headers-11 (structured fields, RFC 9651):

    RateLimit-Policy: "team-requests";q=600;w=60, "user-requests";q=60;w=60
    RateLimit: "user-requests";r=9;t=1

`q` requests may be made in `w` seconds; `r` may be made now, and no more than those within `t` seconds. The policies
are all that apply; the limit is the tightest of them. Beside them Replicate's own, in its spelling (ref 7):
`ratelimit-remaining` and `ratelimit-reset`.
"""

import math
from collections.abc import Sequence

from gateway.core import rates
from gateway.core.request_rates import Bucket


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
