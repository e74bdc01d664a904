"""Two valid values for every setting outside of teams: before and after a reload."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from gateway.config import Config, from_mapping

ENVIRON = {
    "REPLICATE_API_TOKEN": "r8_account_token_one_000000000000000000",
    "OTHER_TOKEN": "r8_account_token_two_000000000000000000",
    "OPS": "ops-secret-number-one",
    "OPS_TWO": "ops-secret-number-two",
    "KEY_ONE": "rgw_one_secret",
    "KEY_TWO": "rgw_two_secret",
}
VALUES: dict[str, tuple[Any, Any]] = {
    "server.host": ("127.0.0.1", "0.0.0.0"),
    "server.port": (8080, 8081),
    "server.workers": (1, 4),
    "server.reuse_port": (False, True),
    "server.public_url": ("https://a.example.com", "https://b.example.com"),
    "server.trusted_proxies": ([], ["10.0.0.0/8"]),
    "server.max_body_bytes": (1000, 2000),
    "server.max_upload_bytes": (1000, 2000),
    "server.max_header_bytes": (32768, 65536),
    "server.body_idle_seconds": (30, 60),
    "server.body_min_bytes_per_second": (1000, 2000),
    "server.max_spool_bytes": (0, 2000),
    "server.shutdown_grace_seconds": (10, 20),
    "server.drain_seconds": (0, 5),
    "limits.max_links": (1000, 2000),
    "limits.max_keys": (1000, 2000),
    "limits.max_values": (1000, 2000),
    "limits.max_depth": (100, 200),
    "limits.max_half_surrogates": (1000, 2000),
    "limits.max_bodies_bytes": (1000, 2000),
    "limits.max_responses_bytes": (1000, 2000),
    "limits.max_token_bytes": (1000, 2000),
    "limits.max_cached_tokens": (1000, 2000),
    "limits.max_page_bytes": (1000, 2000),
    "ops.host": ("127.0.0.1", "localhost"),
    "ops.port": (9464, 9465),
    "ops.token_env": ("OPS", "OPS_TWO"),
    "ops.token_file": ("{folder}/one", "{folder}/two"),
    "ops.public_url": ("https://a.example.com", "https://b.example.com"),
    "ops.max_searched": (5000, 100),
    "ops.max_page_bytes": (1000, 2000),
    "ops.max_data_bytes": (1000, 2000),
    "console.show_data": (True, False),
    "upstream.base_url": ("https://api.replicate.com/v1", "http://127.0.0.1:9090/v1"),
    "upstream.allow_http": (False, True),
    "upstream.token_env": ("REPLICATE_API_TOKEN", "OTHER_TOKEN"),
    "upstream.token_file": ("{folder}/one", "{folder}/two"),
    "upstream.trusted_hosts": (["replicate.delivery"], ["*.replicate.delivery"]),
    "upstream.creates_per_minute": (600, 300),
    "upstream.requests_per_minute": (3000, 100),
    "upstream.adopt_wait_seconds": (20, 5),
    "upstream.unreadable_seconds": (86400, 3600),
    "upstream.webhooks": ("auto", "off"),
    "store.url": ("sqlite:///one.db", "sqlite:///two.db"),
    "store.password_env": ("OPS", "OPS_TWO"),
    "store.password_file": ("{folder}/one", "{folder}/two"),
    "store.listen_url": ("postgresql://gateway@db/one", "postgresql://gateway@db/two"),
    "store.retain_days": (30, 3),
    "store.retain_data_seconds": (3600, 60),
    "cache.enabled": (True, False),
    "cache.share": ("team", "all"),
    "cache.ttl_seconds": (86400, 60),
    "cache.max_bytes": (1000, 2000),
    "cache.memory_bytes": (1000, 2000),
    "cache.followed_bytes": (1000, 2000),
    "cache.metadata_max_bytes": (1000, 2000),
    "cache.schemas_max_bytes": (1000, 2000),
    "cache.random_seeds": ([-1], [0]),
    "cache.immutable_links": ([], ["https://cdn.example.com/*"]),
    "cache.metadata_ttl_seconds": (60, 0),
    "cache.rules": ([], [{"model": "acme/x", "mode": "always"}]),
    "outputs.url": ("one", "two"),
    "outputs.shared": (False, True),
    "outputs.persist": ("off", "all"),
    "outputs.max_bytes": (1000, 2000),
    "outputs.ttl_seconds": (1000, 2000),
    "outputs.max_readers": (1000, 2000),
    "outputs.max_readers_per_team": (1000, 2000),
    "transfers.max_uploads": (10, 20),
    "transfers.max_downloads": (10, 20),
    "transfers.max_per_team": (10, 20),
    "transfers.max_per_public_key": (1, 2),
    "streams.heartbeat_seconds": (15, 5),
    "streams.ticket_ttl_seconds": (1000, 2000),
    "streams.max_log_bytes": (1000, 2000),
    "streams.live_log_bytes": (1000, 2000),
    "streams.kept_log_bytes": (1000, 2000),
    "streams.max_per_team": (10, 20),
    "streams.max_total": (10, 20),
    "webhooks.allow_private_addresses": (False, True),
    "webhooks.allow_http": (False, True),
    "webhooks.max_attempts": (12, 2),
    "webhooks.max_queued": (10, 20),
    "webhooks.max_queued_public": (10, 20),
    "webhooks.max_queued_total": (10, 20),
    "webhooks.retain_dead_days": (7, 1),
    "prices.unknown": ("estimate", "free"),
    "prices.default_hardware": ("gpu-l40s", "gpu-t4"),
    "prices.charge_failed": (True, False),
    "prices.models": ([], [{"model": "acme/x", "usd_per_run": Decimal("0.5")}]),
    "tags.keys": (["project"], ["project", "feature"]),
    "tags.max_values": (1000, 10),
    "metrics.top_targets": (50, 5),
    "audit.retain_days": (365, 30),
    "logs.format": ("console", "json"),
    "logs.level": ("info", "debug"),
    "tracing.enabled": (False, True),
    "tracing.propagate": (False, True),
}


AROUND: dict[str, dict[str, dict[str, Any]]] = {
    "server.workers": {"store": {"url": "postgresql://gateway@db/gateway"}},
    "store.password_env": {"store": {"url": "postgresql://gateway@db/gateway"}},
    "store.password_file": {"store": {"url": "postgresql://gateway@db/gateway"}},
    "store.listen_url": {"store": {"url": "postgresql://gateway@pool:6432/gateway"}},
    "outputs.persist": {"outputs": {"url": "one"}},
    "upstream.webhooks": {"server": {"public_url": "https://a.example.com"}},
}
"""Other settings that a setting requires."""


def config_of(**sections: Any) -> Config:
    """Return a config."""
    return from_mapping(sections, ENVIRON)


def keys_of_the_config() -> Iterator[str]:
    """Yield every setting of a section that is a table."""
    for section, field in Config.model_fields.items():
        if section not in ("aliases", "issuers", "teams"):
            assert field.annotation is not None
            yield from (f"{section}.{name}" for name in field.annotation.model_fields)


def changed(key: str, folder: Path) -> tuple[Config, Config]:
    """Return two configs that differ in one setting."""
    for name in ("one", "two"):
        (folder / name).write_text(f"secret-of-file-{name}")
    section, name = key.split(".")
    one, two = (each.format(folder=folder) if isinstance(each, str) else each for each in VALUES[key])
    around = AROUND.get(key, {})
    old, new = ({**around, section: {**around.get(section, {}), name: value}} for value in (one, two))
    return config_of(**old), config_of(**new)
