"""A node's share of one of the account's rates, which follows what upstream allows.

What upstream allows, it allows all nodes together: `rate` is the whole rate, as in `adaptive_rate.py`, and every node
learns it from the others. The bucket is that of the node's share. Where the share is too small for a token, the node
gets tokens one by one in its turn (`grant`).
"""

import math
from collections.abc import Callable

from gateway.domain.rates import Rate
from gateway.domain.upstream_response import Answer
from gateway.throttling.rules import node_share
from gateway.throttling.rules.adaptive_rate import LearnedRate

_RETRY_SECONDS = 1.0
"""The rate is divided again within a second, so nothing waits longer before it looks again."""
_REPORTED_SECONDS = 0.5


class DividedLearnedRate(LearnedRate):
    """A token bucket with a share of a rate that follows upstream's responses.

    `is_valid` says whether the node's lease is valid: if not, there are no tokens. `on_throttled` is called when
    upstream has lowered or paused the rate.
    """

    def __init__(self, configured: Rate, is_valid: Callable[[], bool], on_throttled: Callable[[], None]) -> None:
        super().__init__(configured)
        self.share = 0.0
        self.granted = 0
        """Tokens that the node got in its turn, and has not used."""
        self._is_valid = is_valid
        self._on_throttled = on_throttled
        self._reported_until = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until the next request can be sent, or until it is worth asking again."""
        if self.rate is not self.configured:
            self._grow(now)
        paused = self._paused_until - now
        if not self._is_valid():
            return max(paused, _RETRY_SECONDS)
        if self.granted:
            return paused
        return max(paused, min(_RETRY_SECONDS, node_share.wait(self._full_at, self.rate, self.share, now)))

    def take(self, now: float) -> None:
        """Take a permit without a check. Call only when `wait` returns 0 or less."""
        if self.granted:
            self.granted -= 1
        else:
            self._full_at = node_share.take(self._full_at, self.rate, self.share, now)

    def give_back(self) -> None:
        """Return a permit whose request was not sent."""
        if self.share * self.rate.burst >= 1.0:
            self._full_at -= self.rate.interval / self.share
        else:
            self.granted += 1

    def grant(self, count: int) -> None:
        """Add tokens that the node got in its turn."""
        self.granted += count

    def remaining(self, now: float) -> int:
        """Return how many requests this node can send at once."""
        if now < self._paused_until or not self._is_valid():
            return 0
        return self.granted + math.floor(node_share.level(self._full_at, self.rate, self.share, now) + 1e-6)

    def resize(self, share: float, now: float, tokens: float = 0.0) -> float:
        """Change the share; return the tokens that were taken out of it."""
        self._full_at, given_up = node_share.resize(self._full_at, self.rate, self.share, now, to=share, tokens=tokens)
        self.share = share
        return given_up

    @property
    def needs_turn(self) -> bool:
        """Whether the share is too small for a token."""
        return self.share * self.rate.burst < 1.0

    def observe_response(self, answer: Answer, now: float) -> None:
        """Adapt to upstream's response. Call `on_throttled` if it lowers or pauses the rate."""
        before = self.rate
        super().observe_response(answer, now)
        is_lowered = self.rate.per_minute < before.per_minute or self.rate.burst < before.burst
        if is_lowered or self._paused_until > max(self._reported_until, now) + _REPORTED_SECONDS:
            self._reported_until = self._paused_until
            self._on_throttled()

    def paused_seconds(self, now: float) -> float:
        """Return for how long nothing may be sent."""
        return max(0.0, self._paused_until - now)

    def adopt(self, rate: Rate, paused_seconds: float, seconds_since: float, now: float) -> None:
        """Take over what upstream said to another node: the rate, how long to pause, and how long ago that was."""
        self._pause(now + paused_seconds, now)
        self._reported_until = self._paused_until
        self._set(rate.per_minute, rate.burst)
        self._halved_at = now - seconds_since
        self._grown_at = max(self._paused_until, now) if paused_seconds > 0.0 else now - seconds_since
        if paused_seconds > 0.0:
            # As in the bucket of the whole rate: one request goes first, the others follow at the rate.
            self._full_at = max(self._full_at, self._paused_until + self.rate.tolerance - self.rate.interval)
