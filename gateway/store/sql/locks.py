"""What steps lock, in the one order in which they may do it. An engine with a single writer needs none of it.

The order keeps two steps from waiting for each other. `gateway.store.postgres.locks` takes the locks.
"""

import enum


class Lock(enum.IntEnum):
    """What a step can lock. A step takes locks in this order; several of one kind in one call."""

    NODES = 1
    """The nodes: none joins. Who belongs to no living node is known for as long as the step lasts."""
    OUTPUTS = 2
    """Which runs own which objects, and which objects are deleted."""
    FILES = 3
    """Which files use which file upstream."""
    NAMES = 4
    """Names that are given once: of keys and secrets."""
    IDEMPOTENCY_KEY = 5
    """A team's idempotency key, known or not."""
    IDENTITY = 6
    """A fingerprint, provisional identity or id of an intent: whether there is an open run of it."""
    RUN = 7
    """Runs by id. Nobody else joins, cancels, ends or deletes them."""
    RUN_OF_PREDICTION = 8
    """The run of a prediction."""
    PLACES = 9
    """How many webhook deliveries there may be."""
    TEAM = 10
    """A team's limits, also where it has no counters yet."""
    METERS = 11
    """Counters of scopes. What is spent is read after they are locked."""
    NEW_NAMES = 12
    """Users and values of cost tags that have no sum yet: whether they are counted by name."""
    SUMS = 13
    """All sums of the ledger."""
    RESERVATIONS = 14
    """All reservations and counters."""
    LEDGER = 15
    """The lines of the ledger: none is entered, and those that were are committed."""
    RATES = 16
    """Rates that nodes share, and the shares, by name of the rate."""
