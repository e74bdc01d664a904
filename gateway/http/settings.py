"""What the edge needs to know of the config, as plain values."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network

import msgspec


class EdgeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds."""

    public_url: str | None
    """Without `/v1` and without a slash at its end."""
    upstream_base: str
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    max_body_bytes: int
    max_upload_bytes: int
    body_seconds: float = 60.0
    """Longest time that a body other than an upload may take to arrive."""
    upload_seconds: float = 600.0
    max_streams: int = 10_000
    max_streams_per_team: int = 1000
    allow_http_webhooks: bool = False
    allow_private_webhooks: bool = False
    metadata_ttl_seconds: float = 60.0
    origins: frozenset[str] = frozenset()
    """Every origin that some team lists: what a preflight, which carries no key, is judged by."""
    ops_token: str | None = None
    team_origins: Mapping[str, tuple[str, ...]] = {}
    """The origins of each team that there is."""


class LiveSettings:
    """Holds the settings that count now. A reload of the config puts others in their place, all at once.

    Whoever waits for something in between two looks, and needs both to agree, keeps what the first one gave.
    """

    def __init__(self, settings: EdgeSettings) -> None:
        self.now = settings
