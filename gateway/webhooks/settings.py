"""Settings of webhook delivery, as plain values."""

import msgspec

from gateway.webhooks.rules.slots import Slots


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    max_attempts: int
    max_queued: int
    """Limit of a team's places in the queue, of its dead letters, and of its predictions with unsent progress."""
    retain_dead_seconds: float
    public_url: str | None = None
    """The base of links in bodies, without `/v1`; `None` for the listener's own address."""
    slots: Slots = Slots(total=64, per_receiver=4, per_team=32)
    """Maximum concurrent deliveries, of at most fifteen seconds each."""
    waiting_per_receiver: int = 16
    waiting_per_team: int = 256
    """Claimed deliveries that wait in memory. Bodies stay in the store until they are sent."""
