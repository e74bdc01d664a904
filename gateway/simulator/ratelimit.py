"""Rate limits of an account, as token buckets. The response texts are in `problems`."""

import math
from collections.abc import Callable


class Bucket:
    """Lets `per_minute` requests through, at most `burst` at once."""

    __slots__ = ("_at", "_burst", "_level", "_now", "_rate")

    def __init__(self, per_minute: int, now: Callable[[], float], burst: int | None = None) -> None:
        self._rate = per_minute / 60
        self._burst = float(burst or per_minute)
        self._level = self._burst
        self._now = now
        self._at = now()

    def take(self) -> int | None:
        """Take a token. Return how many remain, or None if there was none."""
        now = self._now()
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._rate)
        self._at = now
        if self._level < 1.0:
            return None
        self._level -= 1.0
        return int(self._level)

    def retry_after(self) -> int:
        """Return the whole seconds until the next token."""
        return max(1, math.ceil((1.0 - self._level) / self._rate))
