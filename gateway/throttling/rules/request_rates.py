"""Request rates: how many requests a team, a key, a browser token, a user and an address may make.

See docs/architecture.md, Limits.

A request is counted under all of them in one step: first each is asked, then each is charged, so that what one refuses
costs nothing with the others. Nothing here waits, and nothing is stored: the state of a rate is one number.

A create over a rate may be held (`request_line.py`). Those that are held leave half of the burst to the requests that
cannot be: otherwise creates that wait would have the polls refused of runs that are paid for.

Teams and keys of the config are kept for good. Users, addresses and tokens are made up by callers: the ones that were
used last are kept, and one that falls out begins anew with a full bucket.
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
"""Users, addresses and tokens that are told apart: some 20 MB. They are counted within the limits of their team."""
NAME = "requests_per_minute"


class Bucket:
    """One rate of one subject, and its state."""

    __slots__ = ("burst", "full_at", "held_rate", "label", "limit", "of", "policy", "rate")

    def __init__(self, of: SubjectKind, limit: int, burst: int | None, label: str) -> None:
        self.of = of
        self.full_at = rates.FULL
        self.label = f"{label}-requests"
        self.configure(limit, burst)

    def configure(self, limit: int, burst: int | None) -> None:
        """Go by another rate. What was taken stays taken."""
        self.limit = limit
        self.burst = burst
        self.rate = Rate.of(limit, burst)
        self.held_rate = Rate(self.rate.per_minute, max(1, self.rate.burst // 2))
        self.policy = f'"{self.label}";q={limit};w=60'
        """Its part of the header `RateLimit-Policy`: see `rate_headers`."""


class RateExceeded(msgspec.Struct, frozen=True):
    """A rate that refuses, and in how many seconds it would not."""

    bucket: Bucket
    seconds: float


class _Known(msgspec.Struct, frozen=True):
    """What is the same for all requests of a key or token, for as long as its team and key have the same settings."""

    team: Team
    allowance: Allowance
    buckets: tuple[Bucket, ...]
    by_user: tuple[Subject, ...]
    """The subjects that a user is counted as, but for the user's name at the end of their ids; none, if it does not
    matter which user asks."""
    by_address: tuple[Subject, ...]
    """The same of an address."""


class RateStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One limit as it is now, for people to look at."""

    name: str
    of: SubjectKind
    limit: int
    used: int
    """Of what may come at once."""
    held: int = 0
    remaining: int
    reset_seconds: float
    """Until it is whole again."""


class _Kept(LRUCache[tuple[SubjectKind, str], Bucket]):
    """The buckets that were used last."""

    def __init__(self, maxsize: int) -> None:
        super().__init__(maxsize)
        self.dropped = 0

    def popitem(self) -> Any:
        """Let the one fall out that was not used for longest."""
        self.dropped += 1
        return super().popitem()


class RequestRates:
    """The state of every request rate."""

    def __init__(self, *, max_kept: int = MAX_KEPT) -> None:
        self._max_kept = max_kept
        self._fixed: dict[tuple[SubjectKind, str], Bucket] = {}
        self._kept = _Kept(max_kept)
        self._known: dict[str, _Known] = {}

    @property
    def kept(self) -> int:
        """How many users, addresses and tokens are known."""
        return len(self._kept)

    @property
    def dropped(self) -> int:
        """How many have fallen out."""
        return self._kept.dropped

    def known(self, caller: Caller) -> _Known:
        """Return what is counted of a caller, and whether it matters which user asks, and from where.

        A reload of the config makes new teams and allowances. Their limits then count; what was taken stays taken.
        """
        found = self._known.get(caller.counted_as)
        if found is None or found.team is not caller.team or found.allowance is not caller.allowance:
            if len(self._known) >= self._max_kept:
                # Nothing is lost: the buckets themselves are elsewhere.
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
        """Return the buckets of a request, widest first; none, if nothing limits its rate."""
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
            bucket = table[key] = Bucket(subject.of, limit, burst, subject.label)
        elif bucket.limit != limit or bucket.burst != burst:
            bucket.configure(limit, burst)
        return bucket


def admit(buckets: tuple[Bucket, ...], now: float, *, held: bool = False) -> RateExceeded | None:
    """Charge a request to all of its buckets, or to none: then return the one that lets it wait for longest."""
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


def retry_after(over: RateExceeded) -> int:
    """Return after how many whole seconds another try makes sense: at least one."""
    return max(1, math.ceil(over.seconds))


def standing(bucket: Bucket, now: float) -> RateStatus:
    """Return a bucket's state for people to look at."""
    remaining = rates.remaining(bucket.full_at, bucket.rate, now)
    return RateStatus(
        name=NAME,
        of=bucket.of,
        limit=bucket.limit,
        used=bucket.rate.burst - remaining,
        remaining=remaining,
        reset_seconds=rates.reset_seconds(bucket.full_at, now),
    )
