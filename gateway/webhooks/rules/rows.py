"""Deliveries as rows of a table, for operators."""

from typing import Final

import msgspec

from gateway.domain import times
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind, DeliveryState


class DeliveryRow(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that the receiver has not accepted."""

    id: str
    """The header `webhook-id`."""
    state: DeliveryState
    team: str
    kind: DeliveryKind
    prediction: str | None
    created_at: str
    attempts: int
    next_at: str | None
    """The next attempt; null before the first, which is due now, and for a dead letter."""
    dead_at: str | None
    receiver: str
    """Not the whole URL: its query may contain a secret."""
    error: str | None


COLUMNS: Final = DeliveryRow.__struct_fields__


def row_of(delivery: Delivery) -> DeliveryRow:
    """Return the row of a delivery."""
    has_next = bool(delivery.next_at) and delivery.dead_at is None
    return DeliveryRow(
        id=delivery.id,
        state=delivery.state,
        team=delivery.team,
        kind=delivery.kind,
        prediction=delivery.prediction_id,
        created_at=times.render(delivery.created_at),
        attempts=delivery.attempts,
        next_at=times.render(delivery.next_at) if has_next else None,
        dead_at=None if delivery.dead_at is None else times.render(delivery.dead_at),
        receiver=delivery.receiver,
        error=delivery.error,
    )
