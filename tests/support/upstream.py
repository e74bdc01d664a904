"""What the simulator has and has received."""

import math

from gateway.predictions.rules.polling import next_poll_seconds
from gateway.simulator import Simulator
from tests.support.stack import Stack

CREATES = "*predictions.create"
_READS_BESIDES = 3
"""Such as one when a stream has ended."""


def version_of(upstream: Simulator, ref: str) -> str:
    """Return the id of a model's newest version."""
    latest = upstream.world.registry.models[ref].latest
    assert latest is not None, f"{ref} has no version"
    return latest.id


def creates(upstream: Simulator) -> int:
    """Count the creates that upstream received, on any of the three routes."""
    return upstream.requests.count(CREATES)


def reads(upstream: Simulator) -> int:
    """Count the reads of single predictions and trainings that upstream received."""
    return upstream.requests.count("predictions.get") + upstream.requests.count("trainings.get")


def paced_reads(seconds: float) -> int:
    """Return how many reads of a run the gateway sends by itself in so many seconds, at most."""
    count, age = _READS_BESIDES, 0.0
    while age < seconds:
        count, age = count + 1, age + next_poll_seconds(age, 1, math.inf)
    return count


def assert_upstream_saw_no_key(stack: Stack) -> None:
    """Fail if a request to the API contained a caller's key or lacked the account's token."""
    for seen in stack.upstream.requests:
        if seen.origin != "api":
            continue
        assert seen.headers.get("authorization") == f"Bearer {stack.upstream.token}", seen.operation
        everything = "\n".join((seen.path, seen.query, seen.body, *seen.headers.values()))
        for name, key in stack.keys.items():
            assert key not in everything, f"the key of {name} was in a request for {seen.operation}"
