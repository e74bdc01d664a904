"""A request rate that several nodes share: this node's share of the bucket, and what it knows of the rest.

The node takes tokens from its share in memory, and from what no node holds by a step of the store. `free` and
`free_tokens` are what the last step has shown of that.
"""

import math

from gateway.domain.limits import SubjectKind
from gateway.throttling.rules import node_share
from gateway.throttling.rules.divided_rate import Seen, Want
from gateway.throttling.rules.division import LEAST_MEASURED_SECONDS, smoothed
from gateway.throttling.rules.request_rates import Bucket

_SHORT_SECONDS = 1.0
_ROUNDING = 1e-6


class DividedBucket(Bucket):
    """One rate of one subject, and this node's part of it. `full_at` is an estimate for display."""

    __slots__ = ("_demand", "_free", "_free_at", "_free_tokens", "_measured_at", "is_recorded", "name", "own_full_at",
                 "requests", "share", "used_at")  # fmt: skip

    def __init__(self, name: str, of: SubjectKind, limit: int, burst: int | None, label: str, now: float) -> None:
        super().__init__(of, limit, burst, label)
        self.name = name
        self.share = 0.0
        self.own_full_at = now
        self.requests = 0
        """Requests since `demand` was called, also refused ones."""
        self.used_at = now
        self.is_recorded = False
        """Whether the store has a demand of this node."""
        self._demand = 0.0
        self._measured_at = now
        self._free, self._free_tokens, self._free_at = 1.0, float(self.rate.burst), now

    def own_wait(self, now: float, *, held: bool) -> float:
        """Return the seconds until the own share has a token; infinity if it is too small."""
        return node_share.wait(self.own_full_at, self.rate, self.share, now, self._spare(held) * self.share)

    def record_wait(self, now: float, *, held: bool) -> float:
        """Estimate the seconds until there is a token that no node holds; infinity if too little is free.

        That lasts a second: by then nodes can have given back shares, so it is worth a step to look again.
        """
        needed = 1.0 + self._spare(held) * self._free
        if self._free * self.rate.burst < needed:
            return math.inf if now - self._free_at < _SHORT_SECONDS else 0.0
        return max(0.0, needed - self._record_level(now)) * self.rate.interval / self._free

    @property
    def is_elsewhere(self) -> bool:
        """Whether other nodes hold shares."""
        return self.share + self._free < 1.0 - _ROUNDING

    @property
    def is_short(self) -> bool:
        """Whether other nodes hold so much that a step finds no token."""
        return self._free * self.rate.burst < 1.0

    def want(self, *, held: bool) -> Want:
        """Return what a request needs from what no node holds."""
        return Want(self.name, self.rate, self._spare(held))

    def take_own(self, now: float) -> None:
        """Take a token from the own share. Does not check that there is one."""
        self.own_full_at = node_share.take(self.own_full_at, self.rate, self.share, now)

    def give_back_own(self) -> None:
        """Return a token to the own share."""
        self.own_full_at -= self.rate.interval / self.share

    def resize(self, share: float, now: float, tokens: float = 0.0) -> float:
        """Change the share; return the tokens that were taken out of it."""
        self.own_full_at, given_up = node_share.resize(
            self.own_full_at, self.rate, self.share, now, to=share, tokens=tokens
        )
        self.share = share
        return given_up

    def see(self, seen: Seen, now: float) -> None:
        """Note what a step has shown of what no node holds."""
        self._free, self._free_tokens, self._free_at = seen.free, seen.tokens, now

    def estimate(self, now: float) -> None:
        """Set `full_at`, as if the shares of other nodes were as full as what is known here."""
        part = self.share + self._free
        if part > 0.0:
            known = node_share.level(self.own_full_at, self.rate, self.share, now) + self._record_level(now)
            self.full_at = node_share.at_level(min(known, part * self.rate.burst), self.rate, part, now)

    def demand(self, now: float) -> float:
        """Return the requests per second: at once as many as there were, falling within a second or two."""
        passed = now - self._measured_at
        if passed >= LEAST_MEASURED_SECONDS:
            self._demand = smoothed(self._demand, self.requests, passed)
            self.requests = 0
            self._measured_at = now
        return self._demand

    def _record_level(self, now: float) -> float:
        tokens = self._free_tokens + (now - self._free_at) / self.rate.interval * self._free
        return min(tokens, self._free * self.rate.burst)

    def _spare(self, held: bool) -> float:
        return float(self.rate.burst - self.held_rate.burst) if held else 0.0
