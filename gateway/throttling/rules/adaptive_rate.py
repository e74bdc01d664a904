"""The account's rate, as it is configured and as upstream shows it to be (docs/replicate-api.md, Rate limits).

Upstream's limits are not what the documentation says when the account is low on credit, or when somebody else uses it
too. What upstream says is believed at once, and tested with care afterwards:

- A 429 pauses until `retry_after`; then one request goes as a probe and the others follow evenly.
- "Reduced to 6 requests per minute with a burst of 1" becomes the rate. A 429 without such words halves it, once for
  each pause, down to `FLOOR_PER_MINUTE`.
- Each `PROBE_SECONDS` without a 429 a tenth of the configured rate comes back, until that is reached: additive
  increase, multiplicative decrease (D.-M. Chiu, R. Jain, 1989). A probe that goes too far costs one 429, which starts
  nothing upstream and which no caller sees.
- `ratelimit-remaining` lower than what is counted here lowers the count. Higher, it changes nothing: upstream allows
  bursts that would be somebody's share.

Pure: times are arguments, of any clock that all calls share.
"""

import re
from collections.abc import Mapping

import msgspec

from gateway.domain import rates
from gateway.domain.rates import Rate
from gateway.domain.upstream_response import Answer, retry_after_seconds

FLOOR_PER_MINUTE = 6.0
"""The least that upstream leaves an account (docs/replicate-api.md, Rate limits)."""
PROBE_SECONDS = 60.0
_STEP = 0.1
_DECREASE = 0.5
_PAUSE_UNSAID = 5.0
_SHORTEST_PAUSE = 1.0
"""Upstream counts whole seconds, so its 0 is a part of one. Without a pause it would be asked as fast as it refuses."""
_LONGEST_PAUSE = 600.0
_REDUCED = re.compile(r"reduced to (\d{1,6}) requests? per (second|minute|hour)(?: with a burst of (\d{1,6}))?")
_RESETS = re.compile(r"resets? in ~?(\d{1,5})s")
_PER_MINUTE = {"second": 60.0, "minute": 1.0, "hour": 1 / 60}


class Throttle(msgspec.Struct, frozen=True):
    """What a 429 says."""

    retry_after: float | None = None
    reduced: Rate | None = None


class _Body(msgspec.Struct):
    detail: str = ""


def read_throttle(answer: Answer) -> Throttle:
    """Read a 429: when to come again, from header, body or text, and the rate that the text names."""
    try:
        detail = msgspec.json.decode(answer.body, type=_Body).detail
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        detail = ""
    retry_after = retry_after_seconds(answer)
    if retry_after is None and (resets := _RESETS.search(detail)):
        retry_after = float(resets[1])
    if not (reduced := _REDUCED.search(detail)) or not int(reduced[1]):
        return Throttle(retry_after)
    per_minute = int(reduced[1]) * _PER_MINUTE[reduced[2]]
    return Throttle(retry_after, Rate.of(per_minute, int(reduced[3]) if reduced[3] else None))


def _whole(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


class LearnedRate:
    """A bucket whose rate follows what upstream says of it."""

    def __init__(self, configured: Rate) -> None:
        self.configured = configured
        self.rate = configured
        """The rate that counts now."""
        self.throttled = 0
        """How many 429s have been heard."""
        self._full_at = rates.FULL
        self._paused_until = 0.0
        self._grown_at = 0.0

    @property
    def is_reduced(self) -> bool:
        """Whether less than the configured rate counts."""
        return self.rate is not self.configured

    def configure(self, configured: Rate) -> None:
        """Take another rate as the configured one. What was learned stands, as far as it is below that."""
        was_reduced, self.configured = self.is_reduced, configured
        if was_reduced:
            self._set(self.rate.per_minute, self.rate.burst)
        else:
            self.rate = configured

    def wait(self, now: float) -> float:
        """Return after how many seconds the next request may go."""
        if self.rate is not self.configured:
            self._grow(now)
        return max(self._paused_until - now, rates.wait(self._full_at, self.rate, now))

    def take(self, now: float) -> None:
        """Take one; whether it may be is for `wait` to say."""
        self._full_at = rates.take(self._full_at, self.rate, now)

    def give_back(self) -> None:
        """Return one that was taken for a request that was not sent."""
        self._full_at -= self.rate.interval

    def remaining(self, now: float) -> int:
        """Return how many may go now."""
        return 0 if now < self._paused_until else rates.remaining(self._full_at, self.rate, now)

    def reset_seconds(self, now: float) -> float:
        """Return in how many seconds the bucket is full again, at the rate that counts now."""
        return max(rates.reset_seconds(self._full_at, now), self._paused_until - now)

    def observe_response(self, answer: Answer, now: float) -> None:
        """Learn from an answer of upstream."""
        if answer.status == 429:
            self._hear_throttle(read_throttle(answer), now)
        elif (left := _whole(answer.headers, "ratelimit-remaining")) is not None:
            self._hear_remaining(left, _whole(answer.headers, "ratelimit-reset") or 0, now)

    def _hear_remaining(self, left: int, reset: int, now: float) -> None:
        if left < rates.remaining(self._full_at, self.rate, now):
            self._full_at = now + self.rate.tolerance - left * self.rate.interval
        if left == 0:
            self._pause(now + reset, now)

    def _hear_throttle(self, throttle: Throttle, now: float) -> None:
        self.throttled += 1
        is_first = now >= self._paused_until
        seconds = _PAUSE_UNSAID if throttle.retry_after is None else max(throttle.retry_after, _SHORTEST_PAUSE)
        self._pause(now + seconds, now)
        if throttle.reduced is not None:
            self._set(throttle.reduced.per_minute, throttle.reduced.burst)
        elif is_first:
            # Those that were under way when the first was refused tell nothing new.
            self._set(max(self.rate.per_minute * _DECREASE, min(FLOOR_PER_MINUTE, self.rate.per_minute)), None)
        self._grown_at = self._paused_until
        # One goes when the pause is over, the others at their rate.
        self._full_at = self._paused_until + self.rate.tolerance - self.rate.interval

    def _pause(self, until: float, now: float) -> None:
        self._paused_until = max(self._paused_until, min(until, now + _LONGEST_PAUSE))

    def _grow(self, now: float) -> None:
        """Take back what a time without a 429 gives back."""
        steps = int((now - self._grown_at) // PROBE_SECONDS)
        if steps <= 0:
            return
        self._grown_at += steps * PROBE_SECONDS
        before, left = self.rate, (self.rate.tolerance - max(0.0, self._full_at - now)) / self.rate.interval
        self._set(before.per_minute + steps * _STEP * self.configured.per_minute, None)
        # What may go at once grows with time, not with the rate's change.
        self._full_at = now + max(0.0, self.rate.tolerance - left * self.rate.interval)

    def _set(self, per_minute: float, burst: int | None) -> None:
        if per_minute >= self.configured.per_minute and (burst is None or burst >= self.configured.burst):
            self.rate = self.configured
        else:
            rate = Rate.of(min(per_minute, self.configured.per_minute), burst)
            self.rate = Rate(rate.per_minute, min(rate.burst, self.configured.burst))
