"""Whether the store's clock has jumped between two readings of it, by a clock of this process that never does."""

from typing import NamedTuple

TOLERATED_SECONDS = 1.0
"""A jump that is smaller does no harm: nodes stop sending earlier than that before their leases end."""


class Reading(NamedTuple):
    """A reading of the store's clock. It was taken between two moments of the own clock."""

    sent_at: float
    answered_at: float
    at: float


def has_jumped(before: Reading, after: Reading) -> bool:
    """Say whether more or less time has passed on the store's clock than can have passed here."""
    passed = after.at - before.at
    least = after.sent_at - before.answered_at - TOLERATED_SECONDS
    most = after.answered_at - before.sent_at + TOLERATED_SECONDS
    return not least <= passed <= most
