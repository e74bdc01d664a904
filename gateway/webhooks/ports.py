"""Webhooks that must arrive: the store keeps them until they are taken, and a transport sends them."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from gateway.domain.records import PredictionView
from gateway.webhooks.rules.deliveries import Delivery, DeliveryCounts, DeliveryState, Receipt


class Busy(msgspec.Struct, frozen=True):
    """Whose messages are not to be handed out for now, and how many of one receiver at most."""

    receivers: Sequence[str] = ()
    teams: Sequence[str] = ()
    per_receiver: int = 1


class Deliveries(Protocol):
    """Messages in their queue, and those that were given up.

    The end of a prediction whose caller gave a `webhook` is queued by the very step that makes it true: `advance` and
    `record_created` that end its run, a `cancel`, a `begin` that hits, and `settle_identity` for those who joined and
    can be told only then. So nothing that a caller may have seen to be over lacks its message, whatever dies when. It
    is queued once; its id follows from the prediction's. A joined prediction whose caller parts (`part`) takes its
    message with it.
    """

    async def add_delivery(self, delivery: Delivery, body: bytes) -> None:
        """Queue a message with its body. Durable. A known id stays as it is."""
        ...

    async def claim_deliveries(self, now: float, until: float, limit: int, busy: Busy) -> list[Delivery]:
        """Hand out at most `limit` messages that are due and that nobody holds; they are the caller's until `until`.

        One step: no message is handed out twice at once. Each counts one more attempt. Those never tried come before
        those that failed, each in their order.
        """
        ...

    async def release_deliveries(self, delivery_ids: Sequence[str]) -> None:
        """Give back messages that were held and not tried: their attempt does not count. Kept."""
        ...

    async def reclaim_deliveries(self) -> int:
        """Let messages that a process which is gone had held be handed out again. Kept. Return how many.

        For the start of a process that alone serves from the store; where several do, a hold simply ends.
        """
        ...

    async def delivery_body(self, delivery_id: str) -> bytes | None:
        """Return the body that is kept with a message; `None` if its records have it still."""
        ...

    async def delivered(self, delivery_id: str) -> None:
        """Forget a message that was taken. Kept."""
        ...

    async def postpone_delivery(self, delivery_id: str, next_at: float, error: str, body: bytes) -> None:
        """Keep a message whose try failed for a later one. Its body stays the same from now on. Kept."""
        ...

    async def bury_delivery(self, delivery_id: str, at: float, error: str, body: bytes) -> None:
        """Give a message up: it becomes a dead letter. Kept."""
        ...

    async def deliveries(
        self, *, team: str | None = None, state: DeliveryState | None = None, after: str = "", limit: int = 500
    ) -> list[Delivery]:
        """List messages by id, beginning after `after`."""
        ...

    async def deliveries_of(self, prediction_id: str, *, limit: int = 100) -> list[Delivery]:
        """List the messages of a prediction that were not taken yet, oldest first."""
        ...

    async def redeliver(self, now: float, delivery_id: str) -> bool:
        """Let a message be tried at once, as if it were new, dead or not. Kept. False if it is unknown, or held."""
        ...

    async def redeliver_all(self, now: float, *, team: str | None = None, dead_only: bool = True) -> int:
        """Let the dead letters of a team, or of all, be tried at once; without `dead_only` what waits as well. Kept.

        Return how many.
        """
        ...

    async def delivery_counts(self) -> DeliveryCounts:
        """Count what is kept."""
        ...

    async def trim_deliveries(self, max_queued: int, max_dead: int, now: float, limit: int = 500) -> int:
        """Give up the oldest messages beyond `max_queued`, and forget the oldest dead letters beyond `max_dead`.

        Kept. In steps of `limit`. Return how many went.
        """
        ...

    async def delete_dead_deliveries(self, before: float, limit: int) -> int:
        """Forget at most `limit` messages that were given up before that. Return how many."""
        ...

    async def awaiting_webhooks(self, *, after: str = "", limit: int = 500) -> list[PredictionView]:
        """List predictions with a `webhook` whose run is live and that have not ended, by id: a restart's work."""
        ...


class WebhookTransport(Protocol):
    """Whoever carries a message to its receiver, once."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Receipt:
        """Send, within a deadline. Whatever goes wrong is in the receipt."""
        ...
