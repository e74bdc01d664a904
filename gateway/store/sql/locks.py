"""What steps lock, in the one order in which they may do it. An engine with a single writer needs none of it.

The order keeps two steps from waiting for each other. `gateway.store.postgres.locks` takes the locks.
"""

import enum


class Lock(enum.IntEnum):
    """What a step can lock. A step takes locks in this order; several of one kind in one call."""

    OUTPUTS = 1
    """Which runs own which objects, and which objects are deleted."""
    FILES = 2
    """Which files use which file upstream."""
    NAMES = 3
    """Names that are given once: of keys and secrets."""
    IDEMPOTENCY_KEY = 4
    """A team's idempotency key, known or not."""
    IDENTITY = 5
    """A fingerprint, provisional identity or id of an intent: whether there is an open run of it."""
    RUN = 6
    """Runs by id. Nobody else joins, cancels, ends or deletes them."""
    RUN_OF_PREDICTION = 7
    """The run of a prediction."""
    PLACES = 8
    """How many webhook deliveries there may be."""
    TEAM = 9
    """A team's limits, also where it has no counters yet."""
    METERS = 10
    """Counters of scopes. What is spent is read after they are locked."""
    SUMS = 11
    """All sums of the ledger."""
    RESERVATIONS = 12
    """All reservations and counters."""
    LEDGER = 13
    """The lines of the ledger: none is entered, and those that were are committed."""
    RATES = 14
    """Rates that nodes share, and the shares, by name of the rate."""
