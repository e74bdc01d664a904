"""Messages to callers' receivers, and when one that was not taken is sent again (docs/architecture.md, Webhooks).

A message keeps its id over every try, restarts included, so that receivers can drop what they have seen.
"""

from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

MESSAGE_ID_BYTES = 17
_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 6 * 3600.0
# What a receiver asks for by `Retry-After` is heeded within reason.
_LONGEST_ASKED = 3600.0
_PORTS = {"https": 443, "http": 80}


class DeliveryState(StrEnum):
    """Where a message stands. One that was taken is no longer kept."""

    QUEUED = "queued"
    DEAD = "dead"
    """Given up: kept for operators to see, and to send again."""


class DeliveryKind(StrEnum):
    """What a message tells."""

    PREDICTION = "prediction"
    """That a prediction has ended. Its body is what the prediction's caller would see."""
    ANNOUNCEMENT = "announcement"
    """Something of the gateway's own, such as that a budget is nearly spent. Its body was given."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A message that must arrive."""

    id: str
    """Goes out as `webhook-id`."""
    kind: DeliveryKind
    team: str
    """Whose secret signs it."""
    url: str
    receiver: str
    """As `receiver_of(url)`: those that share it share their slots."""
    prediction_id: str | None = None
    run_id: str | None = None
    state: DeliveryState = DeliveryState.QUEUED
    created_at: float
    next_at: float = 0.0
    """When it may be tried next; 0 for one that was never tried."""
    held_until: float | None = None
    """Until when the process that is about to send it has it for itself."""
    attempts: int = 0
    """Tries that were begun."""
    error: str | None = None
    """Why the last try failed."""
    dead_at: float | None = None


class DeliveryCounts(msgspec.Struct, frozen=True):
    """How many messages are kept, and since when the oldest of those that wait does."""

    queued: int
    dead: int
    oldest_queued_at: float | None


class Result(StrEnum):
    """What a try came to: a closed set, for metrics."""

    DELIVERED = "delivered"
    ANSWERED = "answered"
    """With something else than a success."""
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    """By the gateway itself: an address or a scheme that is not allowed."""


class Receipt(msgspec.Struct, frozen=True):
    """What a receiver said to one try."""

    result: Result
    words: str = ""
    """For operators. Never holds the URL, nor what the receiver answered beyond its status."""
    retry_after: float | None = None


def message_id(name: str) -> str:
    """Return the id of a message. `name` is a prediction's id for its end, else random."""
    return f"msg_{name}"


def receiver_of(url: str) -> str:
    """Return host and port of a URL: whoever answers there is slow for all who write to it, and for nobody else."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or ''}:{parts.port or _PORTS.get(parts.scheme, 0)}"
    except ValueError:
        return ""


def next_attempt(receipt: Receipt, attempts: int, max_attempts: int, jitter: float) -> float | None:
    """Return the seconds until a message is tried again after so many tries, or `None` to give it up.

    Jitter in [0, 1). The pauses double from a few seconds on: twelve tries are spread over one and a half to three
    hours. What the gateway itself refused is not tried again, since it would ask the same again of the same rules.
    """
    if receipt.result is Result.REFUSED or attempts >= max_attempts:
        return None
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempts - 1, 30))
    pause = longest * (0.5 + jitter / 2)
    return max(pause, min(receipt.retry_after or 0.0, _LONGEST_ASKED))
