"""Times and sizes of predictions, as plain values."""

import msgspec

from gateway.domain.webhook_places import WebhookBounds

DEFAULT_UNREADABLE_SECONDS = 86_400.0
DEFAULT_FOLLOWED_BYTES = 64 * 1024 * 1024


class PredictionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds."""

    adopt_wait_seconds: float
    """How long a caller waits for a create whose outcome is uncertain."""
    ticket_ttl_seconds: float
    """How long the link of a stream opens it."""
    memory_bytes: int
    """Predictions that stay in memory: half of it for their documents, half for bodies as they are shown."""
    followed_bytes: int = DEFAULT_FOLLOWED_BYTES
    """Documents of runs in progress that stay in memory."""
    max_page_bytes: int = 8 * 1024 * 1024
    """A page of a list ends after so much."""
    upstream_webhook_base: str | None = None
    """The address under which upstream calls back; `None` if it does not."""
    unreadable_seconds: float = DEFAULT_UNREADABLE_SECONDS
    """How long a run is followed while upstream's answers about it cannot be read."""
    webhook_bounds: WebhookBounds = WebhookBounds()
