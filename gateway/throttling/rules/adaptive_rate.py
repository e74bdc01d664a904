"""A rate that starts as configured and follows what upstream allows (docs/replicate-api.md, Rate limits).

Upstream's real limits are below the documented ones when the account is low on credit or when other programs use it.
The rate is lowered at once when upstream says so, and raised slowly:

- After a 429 nothing is sent until `retry_after`; then one request goes as a probe and the others follow evenly.
- A 429 that says "reduced to 6 requests per minute with a burst of 1" sets that rate. Any other 429 halves the rate,
  once for each pause and at most once in `HALVING_SECONDS`, down to `FLOOR_PER_MINUTE`.
- For each `PROBE_SECONDS` without a 429 the rate grows by a tenth of the configured rate, up to the configured rate:
  additive increase, multiplicative decrease (D.-M. Chiu, R. Jain, 1989). An increase too far costs one 429, which
  starts nothing upstream and which no caller sees.
- `ratelimit-remaining` below the local count lowers the local count. A higher value changes nothing: upstream allows
  bursts that would use up the shares of other teams.

Pure: times are arguments, from any one monotonic clock.
"""

import math
import re
from collections.abc import Mapping

import msgspec

from gateway.domain import rates
from gateway.domain.rates import Rate
from gateway.domain.upstream_response import Answer, retry_after_seconds

FLOOR_PER_MINUTE = 6.0
"""The lowest limit that upstream gives an account (docs/replicate-api.md, Rate limits)."""
PROBE_SECONDS = 60.0
HALVING_SECONDS = 10.0
"""A storm of 429s has one cause. If each halved the rate, a short one would leave hardly any of it for minutes."""
_STEP = 0.1
_DECREASE = 0.5
_PAUSE_UNSAID = 5.0
_SHORTEST_PAUSE = 1.0
"""Upstream rounds down to full seconds, so 0 means less than one. Without a minimum, retries would loop without
delay."""
_LONGEST_PAUSE = 600.0
_REDUCED = re.compile(r"reduced to (\d{1,6}) requests? per (second|minute|hour)(?: with a burst of (\d{1,6}))?")
_RESETS = re.compile(r"resets? in ~?(\d{1,5})s")
_PER_MINUTE = {"second": 60.0, "minute": 1.0, "hour": 1 / 60}


class Throttle(msgspec.Struct, frozen=True):
    """The contents of a 429: seconds until a retry, and the reduced rate if it names one."""

    retry_after: float | None = None
    reduced: Rate | None = None


class _Body(msgspec.Struct):
    detail: str = ""


def read_throttle(answer: Answer) -> Throttle:
    """Parse a 429: the retry delay from its header, body field or text, and the reduced rate from its text."""
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


def _integer(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


class LearnedRate:
    """A token bucket whose rate follows upstream's responses."""

    def __init__(self, configured: Rate) -> None:
        self.configured = configured
        self.rate = configured
        """The rate in effect."""
        self.throttled = 0
        """Number of 429s so far."""
        self._full_at = rates.FULL
        self._paused_until = 0.0
        self._grown_at = 0.0
        self._halved_at = -math.inf

    @property
    def is_reduced(self) -> bool:
        """Whether the rate in effect is below the configured one."""
        return self.rate is not self.configured

    def configure(self, configured: Rate) -> None:
        """Change the configured rate. A reduction learned from upstream stays in effect while it is below that."""
        was_reduced, self.configured = self.is_reduced, configured
        if was_reduced:
            self._set(self.rate.per_minute, self.rate.burst)
        else:
            self.rate = configured

    def wait(self, now: float) -> float:
        """Return the seconds until the next request can be sent."""
        if self.rate is not self.configured:
            self._grow(now)
        return max(self._paused_until - now, rates.wait(self._full_at, self.rate, now))

    def take(self, now: float) -> None:
        """Take a permit without a check. Call only when `wait` returns 0 or less."""
        self._full_at = rates.take(self._full_at, self.rate, now)

    def give_back(self) -> None:
        """Return a permit whose request was not sent."""
        self._full_at -= self.rate.interval

    def remaining(self, now: float) -> int:
        """Return how many requests can be sent at once."""
        return 0 if now < self._paused_until else rates.remaining(self._full_at, self.rate, now)

    def reset_seconds(self, now: float) -> float:
        """Return the seconds until the bucket is full again, at the rate in effect."""
        return max(rates.reset_seconds(self._full_at, now), self._paused_until - now)

    def observe_response(self, answer: Answer, now: float) -> None:
        """Adapt to upstream's response: a 429, or its rate-limit headers."""
        if answer.status == 429:
            self._apply_throttle(read_throttle(answer), now)
        elif (left := _integer(answer.headers, "ratelimit-remaining")) is not None:
            # The first comparison is cheaper, and usually enough.
            if left < self.rate.burst and left < rates.remaining(self._full_at, self.rate, now):
                self._full_at = now + self.rate.tolerance - left * self.rate.interval
            if left == 0:
                self._pause(now + (_integer(answer.headers, "ratelimit-reset") or 0), now)

    def _apply_throttle(self, throttle: Throttle, now: float) -> None:
        self.throttled += 1
        is_first = now >= self._paused_until
        seconds = _PAUSE_UNSAID if throttle.retry_after is None else max(throttle.retry_after, _SHORTEST_PAUSE)
        self._pause(now + seconds, now)
        if throttle.reduced is not None:
            self._set(throttle.reduced.per_minute, throttle.reduced.burst)
        elif is_first and now >= self._halved_at + HALVING_SECONDS:
            # Later 429s within the pause are for requests sent before the first one: halving again would be too much.
            self._halved_at = now
            self._set(max(self.rate.per_minute * _DECREASE, min(FLOOR_PER_MINUTE, self.rate.per_minute)), None)
        self._grown_at = self._paused_until
        # One request goes when the pause is over, the others follow at the rate.
        self._full_at = self._paused_until + self.rate.tolerance - self.rate.interval

    def _pause(self, until: float, now: float) -> None:
        self._paused_until = max(self._paused_until, min(until, now + _LONGEST_PAUSE))

    def _grow(self, now: float) -> None:
        """Raise the rate for each `PROBE_SECONDS` without a 429."""
        steps = int((now - self._grown_at) // PROBE_SECONDS)
        if steps <= 0:
            return
        self._grown_at += steps * PROBE_SECONDS
        before, left = self.rate, (self.rate.tolerance - max(0.0, self._full_at - now)) / self.rate.interval
        self._set(before.per_minute + steps * _STEP * self.configured.per_minute, None)
        # Keep the number of requests that can go at once: it grows with time, not with a change of the rate.
        self._full_at = now + max(0.0, self.rate.tolerance - left * self.rate.interval)

    def _set(self, per_minute: float, burst: int | None) -> None:
        if per_minute >= self.configured.per_minute and (burst is None or burst >= self.configured.burst):
            self.rate = self.configured
        else:
            rate = Rate.of(min(per_minute, self.configured.per_minute), burst)
            self.rate = Rate(rate.per_minute, min(rate.burst, self.configured.burst))
