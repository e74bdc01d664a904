"""When a read of upstream is asked again, and when it is looked for next.

See docs/architecture.md, Following a run; docs/replicate-api.md, Errors.
"""

from gateway.domain.upstream_response import Answer, retry_after_seconds

MAX_ATTEMPTS = 3
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_RETRIED = frozenset({429, 502, 503, 504})


def is_worth_retrying(answer: Answer) -> bool:
    """Whether a read may be repeated: throttled, or answered by something that is not the API."""
    return answer.status in _RETRIED or answer.is_from_edge


def pause(attempt: int, answer: Answer | None, jitter: float) -> float | None:
    """Return the seconds before the next attempt (the first has number 1), or `None` to give up.

    Jitter in [0, 1). A short `Retry-After` of upstream is kept exactly; a longer one is the caller's to wait.
    """
    if attempt >= MAX_ATTEMPTS:
        return None
    asked = retry_after_seconds(answer) if answer is not None else None
    if asked is not None:
        return asked if asked <= _LONGEST_PAUSE else None
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (attempt - 1))
    return longest * (0.5 + jitter / 2)


_FIRST_LOOK = 0.02
_SHARE_OF_AGE = 0.08
_LONGEST_GAP = 10.0


def next_look(age: float, active: int, requests_per_minute: float) -> float:
    """Return the seconds until a run of this age is looked at again.

    The gap grows with the age, so that the end is seen within about a tenth of the run's duration. Together the
    `active` runs stay under half of the account's limit of calls.
    """
    fair = active * 60.0 / max(requests_per_minute / 2, 1.0)
    return max(min(_LONGEST_GAP, max(_FIRST_LOOK, age * _SHARE_OF_AGE)), fair)
