"""Bounds of event streams, as plain values."""

import msgspec


class StreamSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds."""

    max_log_bytes: int
    """Events of one run that are kept for readers that come later or reconnect."""
    kept_log_bytes: int
    """Events of ended runs that stay in memory."""
    heartbeat_seconds: float
    max_total: int
    """Streams that callers may have open at once."""
    max_per_team: int
    live_log_bytes: int = 64 * 1024 * 1024
    """Events of all runs whose streams are in progress."""
