"""What the pipeline and the handlers need of the config, as plain values."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network

import msgspec

from gateway.domain.body_limits import BodyLimits


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds."""

    public_url: str | None
    """Without `/v1` and without a slash at its end."""
    ops_public_url: str | None = None
    """The origin of the operators' listener, as people open it."""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    max_body_bytes: int
    max_upload_bytes: int
    body_limits: BodyLimits = BodyLimits()
    max_bodies_bytes: int = 128 * 1024 * 1024
    """Of the large request bodies that are in memory at one time."""
    max_responses_bytes: int = 96 * 1024 * 1024
    """Of the large responses that clients have not taken yet."""
    max_page_bytes: int = 8 * 1024 * 1024
    """Of the records of a page of a list, unless one record is larger."""
    max_header_bytes: int = 32 * 1024
    """Largest sum of the header fields of a request."""
    body_idle_seconds: float = 30.0
    """Longest time without data of a request body, uploads included."""
    body_min_bytes_per_second: int = 1000
    """Minimum rate of a body, after one such time."""
    allow_http_webhooks: bool = False
    allow_private_webhooks: bool = False
    origins: frozenset[str] = frozenset()
    """Every origin that some team lists: a preflight carries no key and is checked against these."""
    tag_keys: frozenset[str] = frozenset()
    """The cost tags that there are."""
    team_origins: Mapping[str, tuple[str, ...]] = {}
    """The origins of each team that there is."""
