"""Protocols of webhook delivery: the stored queue, the transport, and counting."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from gateway.domain.audit import Actor
from gateway.domain.ledger import BudgetWarning
from gateway.domain.records import PredictionView
from gateway.webhooks.rules.deliveries import Delivery, DeliveryCounts, DeliveryState, Receipt


class Busy(msgspec.Struct, frozen=True):
    """Receivers and teams to skip when claiming deliveries, and the maximum number of deliveries per receiver."""

    receivers: Sequence[str] = ()
    teams: Sequence[str] = ()
    per_receiver: int = 1


class Deliveries(Protocol):
    """The queue of deliveries, and the dead letters.

    The delivery for the end of a prediction with a `webhook` is queued in the transaction that ends the prediction:
    `advance` and `record_created` that end its run, a `cancel`, a `share` or `start` that answers with a hit, and
    `settle_identity` for joined predictions that could be detached until then. So no crash can lose the delivery of an
    end that a caller has seen. Each end is queued once, under an id that is derived from the prediction's. Detaching a
    joined prediction deletes its delivery.

    The place of that delivery is taken in the step that records the prediction (`ShareRequest.webhook_place`), as a
    delivery in the state `reserved`, which only `delivery_counts` counts.
    """

    async def add_delivery(self, delivery: Delivery, body: bytes) -> None:
        """Queue a delivery with its body. Durable. If the id exists, nothing changes."""
        ...

    async def announce_once(self, warning: BudgetWarning, delivery: Delivery, body: bytes) -> bool:
        """Record a budget warning, and queue its message. Atomic and durable. If the warning is known, nothing changes.

        Return whether it was not known.
        """
        ...

    async def claim_deliveries(self, now: float, until: float, limit: int, busy: Busy) -> list[Delivery]:
        """Claim at most `limit` due deliveries that nobody has claimed; the claim lasts until `until`.

        Atomic: no delivery is claimed twice at a time. Each claim counts as an attempt. New deliveries come first, in
        order of creation, then failed ones, in order of their next attempt.
        """
        ...

    async def release_deliveries(self, delivery_ids: Sequence[str]) -> None:
        """Return claimed deliveries that were not attempted; the attempt does not count. Kept."""
        ...

    async def reclaim_deliveries(self) -> int:
        """Release the claims of a process that has died, and the places that nothing will use. Kept.

        Return how many claims there were.

        Call at the start of the only serving process. Otherwise claims expire by themselves.
        """
        ...

    async def delivery_body(self, delivery_id: str, *, most_bytes: int | None = None) -> "bytes | LargeBody | None":
        """Return a delivery's stored body; `None` if it must be made from the prediction.

        `LargeBody` in place of one of more than `most_bytes`.
        """
        ...

    async def delivered(self, delivery_id: str) -> None:
        """Delete a delivery that the receiver accepted. Kept."""
        ...

    async def postpone_delivery(self, delivery_id: str, next_at: float, error: str, body: bytes) -> None:
        """Schedule the next attempt of a delivery, and store its body, which does not change any more. Kept."""
        ...

    async def mark_dead(self, delivery_id: str, at: float, error: str, body: bytes) -> None:
        """Make a delivery a dead letter: it is not attempted again. Kept."""
        ...

    async def deliveries(
        self, *, team: str | None = None, state: DeliveryState | None = None, after: str = "", limit: int = 500
    ) -> list[Delivery]:
        """List deliveries in order of id, beginning after the id `after`."""
        ...

    async def deliveries_of(self, prediction_id: str, *, limit: int = 100) -> list[Delivery]:
        """List the deliveries of a prediction that were not accepted yet, oldest first."""
        ...

    async def redeliver(self, now: float, delivery_id: str, *, actor: Actor, team: str | None = None) -> bool:
        """Make a delivery, dead or not, due at once with no attempts. Kept, and recorded in the audit log.

        Return `False` if it is unknown, claimed, or of another team than `team`.
        """
        ...

    async def redeliver_all(self, now: float, *, actor: Actor, team: str | None = None, dead_only: bool = True) -> int:
        """Make the dead letters of one team, or of all, due at once; without `dead_only` queued deliveries too. Kept.

        Return how many. Recorded in the audit log, in one entry.
        """
        ...

    async def delivery_counts(self) -> DeliveryCounts:
        """Count queued deliveries, dead letters, and the places that are taken."""
        ...

    async def trim_dead_deliveries(self, most: int, limit: int = 500) -> int:
        """Delete the oldest dead letters of each team that has more than `most`.

        Kept. At most `limit` of each team; return how many in all.
        """
        ...

    async def delete_dead_deliveries(self, before: float, limit: int) -> int:
        """Delete at most `limit` dead letters that died before a time; return how many."""
        ...

    async def awaiting_webhooks(self, *, after: str = "", limit: int = 500) -> list[PredictionView]:
        """List unfinished predictions with a `webhook`, in order of id, to follow them after a restart.

        Large documents are left out.
        """
        ...


class LargeBody(msgspec.Struct, frozen=True):
    """A body that was left in the store, because it is large."""

    size: int


class WebhookTransport(Protocol):
    """Sends webhooks."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> Receipt:
        """Send one request, within a deadline. Never raises for a failed delivery: the receipt has the failure."""
        ...
