"""How hard the gateway tries to deliver webhooks, as plain values."""

import msgspec

from gateway.webhooks.rules.slots import Slots


class WebhookSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in seconds."""

    max_attempts: int
    max_queued: int
    """Messages that wait, and dead letters, each."""
    retain_dead_seconds: float
    public_url: str | None = None
    """What links in bodies begin with, without `/v1`; `None` for the listener's own address."""
    slots: Slots = Slots(total=64, per_receiver=4, per_team=32)
    """Sixty-four at fifteen seconds each at worst; no team takes more than half, no receiver more than a few."""
    waiting_per_receiver: int = 16
    waiting_per_team: int = 256
    """What is handed out by the store and waits in memory; bodies stay in the store until they are sent."""
