"""Request rates on one of several nodes: tokens come from this node's share, in memory, else by a step of the store.

A rate whose burst is small, and one that this node uses seldom, is used by steps only: see docs/architecture.md, Limits
over nodes.
"""

import math
from collections.abc import Callable, Iterable
from typing import cast

from gateway.domain.limits import SubjectKind
from gateway.domain.ports.clock import Clock
from gateway.errors import StoreUnavailable
from gateway.throttling.permit_desk import PermitDesk
from gateway.throttling.rules.divided_bucket import DividedBucket
from gateway.throttling.rules.request_rates import MAX_KEPT, Bucket, RateExceeded, RequestRates
from gateway.throttling.share_lease import ShareLease

_CONFIRMED_SECONDS = 5.0
"""How long a request waits for the store to confirm the lease of a node that has just joined."""
_REDIVIDED_SECONDS = 1.0
"""Within this time a share that another node holds can be here."""


class DividedRequestRates(RequestRates):
    """The part of this node of every request rate."""

    def __init__(self, desk: PermitDesk, lease: ShareLease, clock: Clock, *, max_kept: int = MAX_KEPT) -> None:
        super().__init__(max_kept=max_kept)
        self._desk = desk
        self._lease = lease
        self._clock = clock
        self.active: dict[str, DividedBucket] = {}
        """The rates that this node holds a share of, or has used since the last exchange."""
        self.on_wanted: Callable[[], None] = lambda: None
        """Called when this node has too little of a rate because other nodes hold it."""

    def _new(self, key: tuple[SubjectKind, str], limit: int, burst: int | None, label: str) -> Bucket:
        of, name = key
        # A bucket that was evicted may still hold a share.
        kept = self.active.get(f"{of}:{name}")
        if kept is None:
            return DividedBucket(f"{of}:{name}", of, limit, burst, label, self._clock.monotonic())
        kept.configure(limit, burst)
        return kept

    def admit(self, buckets: tuple[Bucket, ...], now: float, *, held: bool = False) -> RateExceeded | None:
        """Charge a request to the own shares of all its buckets, or to none: see `take`."""
        over: RateExceeded | None = None
        is_valid = self._lease.is_valid()
        for bucket in _divided(buckets):
            wait = bucket.own_wait(now, held=held) if is_valid else math.inf
            if wait > 0 and (over is None or wait > over.seconds):
                over = RateExceeded(bucket, wait)
        if over is not None:
            return RateExceeded(over.bucket, min(over.seconds, _REDIVIDED_SECONDS))
        for bucket in _divided(buckets):
            bucket.take_own(now)
            self._note(bucket, now)
        return None

    async def take(self, buckets: tuple[Bucket, ...], *, held: bool = False) -> RateExceeded | None:
        """Charge a request to the own shares where they have a token, else to what no node holds: to all, or to none.

        Return the exceeded rate. Raise `StoreUnavailable`. Safe to cancel.
        """
        if not await self._lease.wait(self._clock, _CONFIRMED_SECONDS):
            raise StoreUnavailable("The store has not confirmed this node's lease.", retry_after=1)
        now = self._clock.monotonic()
        divided = list(_divided(buckets))
        for bucket in divided:
            self._note(bucket, now)
        exceeded = await self._take(divided, held)
        if exceeded is not None and self._has_token(exceeded.bucket, held):
            # An exchange has put the tokens into the own share meanwhile.
            exceeded = await self._take(divided, held)
        return exceeded

    async def _take(self, divided: list[DividedBucket], held: bool) -> RateExceeded | None:
        now = self._clock.monotonic()
        own = [bucket for bucket in divided if bucket.own_wait(now, held=held) <= 0]
        rest = [bucket for bucket in divided if bucket not in own]
        waits = [min(each.own_wait(now, held=held), each.record_wait(now, held=held)) for each in rest]
        if any(wait > 0 for wait in waits):
            seconds = max(waits)
            return self._exceeded(rest[waits.index(seconds)], seconds)
        for bucket in own:
            bucket.take_own(now)
        if not rest:
            return None
        try:
            taken = await self._desk.take(tuple(bucket.want(held=held) for bucket in rest))
        except BaseException:
            _give_back_own(own)
            raise
        now = self._clock.monotonic()
        for bucket, seen in zip(rest, taken.seen, strict=True):
            bucket.see(seen, now)
            bucket.estimate(now)
        if taken.refused is None:
            return None
        _give_back_own(own)
        return self._exceeded(rest[taken.refused], taken.seconds)

    def give_back(self, buckets: tuple[Bucket, ...]) -> None:
        """Undo a charge: the request was not carried out."""
        for bucket in _divided(buckets):
            if bucket.share > 0.0:
                bucket.give_back_own()
            else:
                self._desk.put_back(bucket.want(held=False))

    def _has_token(self, bucket: Bucket, held: bool) -> bool:
        return cast(DividedBucket, bucket).own_wait(self._clock.monotonic(), held=held) <= 0

    def _exceeded(self, bucket: DividedBucket, seconds: float) -> RateExceeded:
        if seconds > _REDIVIDED_SECONDS and bucket.is_elsewhere:
            self.on_wanted()
            seconds = _REDIVIDED_SECONDS
        return RateExceeded(bucket, min(seconds, bucket.rate.tolerance + _REDIVIDED_SECONDS))

    def _note(self, bucket: DividedBucket, now: float) -> None:
        bucket.requests += 1
        bucket.used_at = now
        # One that was evicted meanwhile stays without a share: two would be twice the rate.
        self.active.setdefault(bucket.name, bucket)
        bucket.estimate(now)


def _divided(buckets: Iterable[Bucket]) -> Iterable[DividedBucket]:
    return cast(Iterable[DividedBucket], buckets)


def _give_back_own(buckets: Iterable[DividedBucket]) -> None:
    for bucket in buckets:
        if bucket.share > 0.0:
            bucket.give_back_own()
