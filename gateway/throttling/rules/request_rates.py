"""Request rates of a team, a key, a browser token, a user and an address (docs/architecture.md, Limits).

A request is charged to all of them in one step: every bucket is checked first, then every bucket is charged, so a
request that one bucket refuses costs nothing in the others. The state of a bucket is one number, in memory only.

A create over a rate can be queued (`hold_queue.py`). Queued creates leave half of the burst to requests that are not
queued; otherwise they would cause the polls of paid runs to be refused.

Buckets of teams and keys from the config are kept forever. Users, addresses and tokens come from callers, so only the
most recently used ones are kept; one that was evicted starts with a full bucket.
"""

import math
from typing import Any

import msgspec
from cachetools import LRUCache

from gateway.domain import rates
from gateway.domain.limits import Allowance, Subject, SubjectKind
from gateway.domain.rates import Rate
from gateway.domain.teams import Caller, Team

MAX_KEPT = 50_000
"""Maximum number of buckets of users, addresses and tokens: about 20 MB. Evicted ones remain limited by their team."""
NAME = "requests_per_minute"


class Bucket:
    """One rate of one subject and its state."""

    __slots__ = ("burst", "full_at", "held_rate", "label", "limit", "of", "policy", "rate")

    def __init__(self, of: SubjectKind, limit: int, burst: int | None, label: str) -> None:
        self.of = of
        self.full_at = rates.FULL
        self.label = f"{label}-requests"
        self.configure(limit, burst)

    def configure(self, limit: int, burst: int | None) -> None:
        """Change the rate. Requests already charged stay charged."""
        self.limit = limit
        self.burst = burst
        self.rate = Rate.of(limit, burst)
        self.held_rate = Rate(self.rate.per_minute, max(1, self.rate.burst // 2))
        self.policy = f'"{self.label}";q={limit};w=60'
        """This bucket's part of the header `RateLimit-Policy`: see `rate_headers`."""


class RateExceeded(msgspec.Struct, frozen=True):
    """An exceeded rate, and the seconds until it would admit the request."""

    bucket: Bucket
    seconds: float


class _Known(msgspec.Struct, frozen=True):
    """What is the same for all requests of one key or token."""

    team: Team
    allowance: Allowance
    buckets: tuple[Bucket, ...]
    """Buckets of the team, key and token."""
    by_user: tuple[Subject, ...]
    """The subjects limited per user, without the user's name at the end of their ids; empty if no limit is per user."""
    by_address: tuple[Subject, ...]
    """The same per address."""


class RateStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one rate, for display."""

    name: str
    of: SubjectKind
    limit: int
    used: int
    """Used part of the burst."""
    held: int = 0
    remaining: int
    """Unused part of the burst."""
    reset_seconds: float
    """Seconds until the burst is fully available again."""


class _RecentBuckets(LRUCache[tuple[SubjectKind, str], Bucket]):
    """The most recently used buckets of users, addresses and tokens. Counts evictions."""

    def __init__(self, maxsize: int) -> None:
        super().__init__(maxsize)
        self.dropped = 0

    def popitem(self) -> Any:
        """Evict the least recently used bucket."""
        self.dropped += 1
        return super().popitem()


def admit(buckets: tuple[Bucket, ...], now: float, *, held: bool = False) -> RateExceeded | None:
    """Charge a request to all its buckets, or to none and return the exceeded rate with the longest wait.

    `held` is for queued creates: they see only half of each burst.
    """
    over: RateExceeded | None = None
    for bucket in buckets:
        wait = rates.wait(bucket.full_at, bucket.held_rate if held else bucket.rate, now)
        if wait > 0 and (over is None or wait > over.seconds):
            over = RateExceeded(bucket, wait)
    if over is None:
        for bucket in buckets:
            bucket.full_at = rates.take(bucket.full_at, bucket.rate, now)
    return over


def give_back(buckets: tuple[Bucket, ...]) -> None:
    """Undo a charge: the request was not carried out."""
    for bucket in buckets:
        bucket.full_at -= bucket.rate.interval


class RequestRates:
    """The state of every request rate."""

    # Not wrapped in methods, because every request calls one.
    admit = staticmethod(admit)
    give_back = staticmethod(give_back)

    def __init__(self, *, max_kept: int = MAX_KEPT) -> None:
        self._max_kept = max_kept
        self._fixed: dict[tuple[SubjectKind, str], Bucket] = {}
        self._kept = _RecentBuckets(max_kept)
        self._known: dict[str, _Known] = {}

    @property
    def kept(self) -> int:
        """Number of users, addresses and tokens with a bucket."""
        return len(self._kept)

    @property
    def dropped(self) -> int:
        """Number of evicted buckets since the start."""
        return self._kept.dropped

    def known(self, caller: Caller) -> _Known:
        """Return what is counted of a caller, and whether it matters which user asks, and from where.

        A reload of the config makes new teams and allowances. Their limits then count; what was taken stays taken.
        """
        found = self._known.get(caller.counted_as)
        if found is None or found.team is not caller.team or found.allowance is not caller.allowance:
            if len(self._known) >= self._max_kept:
                # Only this lookup table is cleared; the buckets and their states stay.
                self._known.clear()
            limited = [subject for subject in caller.subjects("", "") if subject.limits.requests_per_minute is not None]
            found = self._known[caller.counted_as] = _Known(
                caller.team,
                caller.allowance,
                tuple(
                    self._bucket(subject) for subject in limited if subject.of in (SubjectKind.TEAM, SubjectKind.KEY)
                ),
                tuple(subject for subject in limited if subject.of is SubjectKind.USER),
                tuple(subject for subject in limited if subject.of is SubjectKind.ADDRESS and caller.is_public),
            )
        return found

    def buckets(self, caller: Caller, user: str | None = None, address: str | None = None) -> tuple[Bucket, ...]:
        """Return the buckets that a request is charged to, widest first; empty if it has no request rate."""
        known = self.known(caller)
        if user is None and address is None:
            return known.buckets
        users = () if user is None else [self._bucket(subject, user) for subject in known.by_user]
        addresses = () if address is None else [self._bucket(subject, address) for subject in known.by_address]
        return (*known.buckets, *users, *addresses)

    def _bucket(self, subject: Subject, name: str = "") -> Bucket:
        table = self._fixed if subject.is_configured else self._kept
        key = subject.of, subject.id + name
        bucket = table.get(key)
        limit, burst = subject.limits.requests_per_minute, subject.limits.burst
        assert limit is not None
        if bucket is None:
            bucket = table[key] = self._new(key, limit, burst, subject.label)
        elif bucket.limit != limit or bucket.burst != burst:
            bucket.configure(limit, burst)
        return bucket

    def _new(self, key: tuple[SubjectKind, str], limit: int, burst: int | None, label: str) -> Bucket:
        return Bucket(key[0], limit, burst, label)


def retry_after(over: RateExceeded) -> int:
    """Return the seconds after which a retry can succeed, rounded up; at least 1."""
    return max(1, math.ceil(over.seconds))


def status(bucket: Bucket, now: float) -> RateStatus:
    """Return a bucket's state, for display."""
    remaining = rates.remaining(bucket.full_at, bucket.rate, now)
    return RateStatus(
        name=NAME,
        of=bucket.of,
        limit=bucket.limit,
        used=bucket.rate.burst - remaining,
        remaining=remaining,
        reset_seconds=rates.reset_seconds(bucket.full_at, now),
    )
