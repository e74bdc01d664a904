"""Webhook deliveries and their retries (docs/architecture.md, Webhooks).

A delivery keeps its id in every attempt, also after restarts, so that receivers can ignore repetitions.
"""

from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import urlsplit

import msgspec

MESSAGE_ID_BYTES = 26
_FIRST_PAUSE = 5.0
_LONGEST_PAUSE = 6 * 3600.0
# Upper bound for a receiver's `Retry-After`.
_LONGEST_RETRY_AFTER = 3600.0
_PORTS = {"https": 443, "http": 80}


class DeliveryState(StrEnum):
    """State of a stored delivery. An accepted delivery is deleted."""

    RESERVED = "reserved"
    """The place of an event to come: its prediction has not ended."""
    QUEUED = "queued"
    DEAD = "dead"
    """A dead letter: given up, and stored so that operators can see it and send it again."""


class DeliveryKind(StrEnum):
    """What a delivery is about."""

    PREDICTION = "prediction"
    """The end of a prediction. The body is the prediction as its caller sees it."""
    ANNOUNCEMENT = "announcement"
    """A message of the gateway itself, such as a budget warning. The body is stored when it is queued."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook whose delivery is guaranteed."""

    id: str
    """The header `webhook-id`."""
    kind: DeliveryKind
    team: str
    """The team whose secret signs it."""
    url: str
    receiver: str
    """The value of `receiver_of(url)`. Deliveries to one receiver share its slots."""
    prediction_id: str | None = None
    run_id: str | None = None
    state: DeliveryState = DeliveryState.QUEUED
    created_at: float
    next_at: float = 0.0
    """Time of the next attempt; 0 before the first."""
    held_until: float | None = None
    """When the claim of the sending process expires; `None` if it is not claimed."""
    attempts: int = 0
    """Attempts that have begun."""
    error: str | None = None
    """Why the last attempt failed."""
    dead_at: float | None = None
    is_public: bool = False
    """Whether a web page asked for it."""


class DeliveryCounts(msgspec.Struct, frozen=True):
    """Number of stored deliveries, and creation time of the oldest queued one."""

    queued: int
    dead: int
    oldest_queued_at: float | None
    taken: Mapping[str, int] = {}
    """Places that are taken, by team: of queued deliveries, and of those to come."""
    dead_of: Mapping[str, int] = {}
    """Dead letters by team."""


class Result(StrEnum):
    """Result of an attempt. A closed set, for metrics."""

    DELIVERED = "delivered"
    ANSWERED = "answered"
    """The receiver answered with a status that is no success."""
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    """The gateway did not send it: the address or scheme is not allowed."""


class Receipt(msgspec.Struct, frozen=True):
    """The outcome of one attempt."""

    result: Result
    detail: str = ""
    """Description for operators. Contains neither the URL nor the receiver's response, except its status."""
    retry_after: float | None = None
    """Seconds, from the receiver's `Retry-After`."""


def message_id(name: str) -> str:
    """Return the id of a delivery. `name` is the prediction's id for its end, else random."""
    return f"msg_{name}"


def receiver_of(url: str) -> str:
    """Return host and port of a URL. Each receiver has its own slots, so a slow one delays only its own deliveries."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname or ''}:{parts.port or _PORTS.get(parts.scheme, 0)}"
    except ValueError:
        return ""


def next_attempt(receipt: Receipt, attempts: int, max_attempts: int, jitter: float) -> float | None:
    """Return the seconds until the next attempt, or `None` to give up.

    `attempts` is the number of attempts so far, `jitter` is in [0, 1). The pauses double, starting at a few seconds:
    twelve attempts take one and a half to three hours. A delivery that the gateway refused to send is not retried,
    because the same rules would refuse it again.
    """
    if receipt.result is Result.REFUSED or attempts >= max_attempts:
        return None
    longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(attempts - 1, 30))
    pause = longest * (0.5 + jitter / 2)
    return max(pause, min(receipt.retry_after or 0.0, _LONGEST_RETRY_AFTER))
