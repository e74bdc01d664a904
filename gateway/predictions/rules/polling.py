"""How often a run is polled. See docs/architecture.md, Following a run."""

_SHORTEST_INTERVAL = 0.02
_SHARE_OF_AGE = 0.08
_LONGEST_INTERVAL = 10.0


def next_poll_seconds(age: float, active: int, requests_per_minute: float) -> float:
    """Return the seconds until the next poll of a run of this age.

    The interval grows with the age, so that the end is seen within about a tenth of the run's duration. Polls of all
    `active` runs together use at most half of the account's rate of requests.
    """
    fair = active * 60.0 / max(requests_per_minute / 2, 1.0)
    return max(min(_LONGEST_INTERVAL, max(_SHORTEST_INTERVAL, age * _SHARE_OF_AGE)), fair)
