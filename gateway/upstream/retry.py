"""Retries of reads from upstream: which errors are worth one, and the pause before it.

See docs/replicate-api.md, Errors.
"""

from gateway.domain.upstream_response import Answer, retry_after_seconds

MAX_ATTEMPTS = 3
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_RETRIED = frozenset({429, 502, 503, 504})


def is_worth_retrying(answer: Answer) -> bool:
    """Return whether a read can be retried: it was throttled, or answered by a proxy in front of the API."""
    return answer.status in _RETRIED or answer.is_from_edge


def pause(attempt: int, answer: Answer | None, jitter: float) -> float | None:
    """Return the seconds between attempt number `attempt` (from 1) and the next one, or `None` to give up.

    `jitter` is in [0, 1). A short `Retry-After` of upstream is used exactly. With a longer one the caller has to wait,
    so there is no retry here.
    """
    if attempt >= MAX_ATTEMPTS:
        return None
    asked = retry_after_seconds(answer) if answer is not None else None
    if asked is not None:
        return asked if asked <= _LONGEST_PAUSE else None
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (attempt - 1))
    return longest * (0.5 + jitter / 2)
