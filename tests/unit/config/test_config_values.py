"""Values of settings: what is refused, and the forms in which values are kept."""

from decimal import Decimal
from typing import Any

import pytest

from gateway.config import (
    load,
)
from tests.support.config_files import DIGEST, ENVIRON, made, problems, team, write

REFUSED = {
    "server.host": ["", "a b", "http://x", "1.2.3.4.5/8", 5, "-x"],
    "server.port": [-1, 65536, "80", 80.0, True],
    "server.public_url": [
        "", "example.com", "ftp://example.com", "https://", "https://a.com?x=1", "https://a.com/?", "https://a.com#",
        "https://u:p@a.com", "https://a.com:0", "https://a.com:99999", "https://a b.com", "https://a.com/\n", 5,
    ],
    "server.max_body_bytes": [0, -1, "16MiB", 1.5],
    "server.shutdown_grace_seconds": [-1, "10s", float("nan"), float("inf"), True],
    "server.drain_seconds": [-1, "1s", float("nan")],
    "ops.token_env": ["", "A-B", "1A", "A B", 5],
    "upstream.base_url": ["", "api.replicate.com", "ws://x", "https://a.com/v1?x", "https://u@a.com"],
    "upstream.creates_per_minute": [0, -1, 1.5, "600"],
    "upstream.webhooks": ["on", True, ""],
    "store.url": [
        "", "gateway.db", "sqlite://gateway.db", "sqlite:///", "sqlite:////", "sqlite:///a/", "sqlite:///a?x=1",
        "sqlite:///:memory:", "redis://", "redis:///0", "redis://h/x", "redis://h/0/1", "redis://h:99999",
        "redis://:pw@h", "postgres://h/x", "postgresql://h", "postgresql://h/", "postgresql://u:pw@h/x",
        "postgresql://h/x?password=pw", "postgresql://h/x#y", "postgresql:x", "postgresql://h/a/b", 5,
    ],
    "store.retain_days": [0, -1, 1.5],
    "cache.share": ["teams", 1],
    "cache.ttl_seconds": [-1, "1h"],
    "cache.enabled": ["true", 1, 0],
    "outputs.url": ["", "file://", "http://x/y", "s3://", "s3://B", "s3://bucket?key=x", "s3://bucket#x", 5],
    "outputs.persist": ["yes"],
    "streams.heartbeat_seconds": [0, -1],
    "streams.max_total": [0],
    "webhooks.max_attempts": [0, 101],
    "prices.unknown": ["ask"],
    "prices.default_hardware": ["", "GPU", "a b"],
    "metrics.top_targets": [-1],
    "logs.format": ["xml"],
    "logs.level": ["trace", 10],
}  # fmt: skip


@pytest.mark.parametrize(("path", "value"), [(path, value) for path, values in REFUSED.items() for value in values])
def test_values_out_of_range_are_refused(path, value):
    """Each is reported at its location, with what is expected."""
    section, name = path.split(".")
    sections: dict[str, Any] = {section: {name: value}}
    found = problems(**sections)
    assert path in found
    assert found[path].startswith("expected ")
    assert "got " in found[path]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("server.trusted_proxies", "10.0.0.5/8"),
        ("server.trusted_proxies", "proxy.example.com"),
        ("server.trusted_proxies", 5),
        ("upstream.trusted_hosts", "https://replicate.delivery"),
        ("upstream.trusted_hosts", "*"),
        ("upstream.trusted_hosts", "*.com.*"),
        ("upstream.trusted_hosts", "*.localhost"),
        ("upstream.trusted_hosts", "replicate.delivery:443"),
        ("cache.random_seeds", 1.5),
    ],
)
def test_invalid_list_item_is_reported_with_its_index(path, value):
    """The second entry is `[1]`."""
    section, name = path.split(".")
    good = {"trusted_proxies": "10.0.0.0/8", "trusted_hosts": "replicate.delivery", "random_seeds": -1}[name]
    assert list(problems(**{section: {name: [good, value]}})) == [f"{path}[1]"]


TEAM_REFUSED = {
    "name": ["", "Acme", "a b", "a" * 65, "ä", "a/b", 5],
    "weight": [0, -1, "1", float("inf")],
    "max_wait_seconds": [-1, "20s"],
    "requests_per_minute": [0, -1, 1.5, True, "60"],
    "predictions_per_minute": [0],
    "burst": [0],
    "concurrent_predictions": [0],
    "seconds_per_day": [0, -1],
    "seconds_per_month": [0, float("nan")],
    "budget_usd_per_day": [0, -3, "200", 0.0000001, 10**10, Decimal("Infinity")],
    "budget_usd_per_month": [0],
    "may_assert_deterministic": [1, "yes"],
    "honor_cache_control": ["no"],
    "unbound_tokens": ["no"],
    "public_sees": ["all", True],
    "public_webhooks": ["no"],
    "models": [[], "acme/*", ["acme"], [5], ["a/b/c"], ["a/[bc]"]],
    "scopes": ["read", ["fly"], [5]],
    "origins": ["https://a.com", ["a.com"], ["https://a.com/"], ["https://*.1.2.3.4"], ["https://a.*.com"], ["null"]],
    "per_user": [5, {"burst": 0}, {"weight": 1}],
    "per_address": [{"requests_per_minute": 0}],
    "per_tag": [5, {"project": 5}, {"Project": {}}, {"project:": {}}],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, them in TEAM_REFUSED.items() for value in them])
def test_settings_of_a_team_out_of_range_are_refused(name, value):
    """Limits are positive; names, patterns and origins are well formed."""
    found = problems(teams=[team() | {name: value}])
    assert len(found) == 1
    (path,) = found
    assert path.startswith(f"teams[0].{name}")


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("https://gateway.example.com", "https://gateway.example.com"),
        ("https://gateway.example.com/", "https://gateway.example.com"),
        ("https://gateway.example.com/v1", "https://gateway.example.com"),
        ("https://gateway.example.com/v1/", "https://gateway.example.com"),
        ("https://Gateway.Example.com:8443/replicate/v1/", "https://gateway.example.com:8443/replicate"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_public_url_is_normalized(given, normal):
    """With or without /v1 and trailing slash, links are right."""
    assert made(server={"public_url": given}).server.public_url == normal


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("https://api.replicate.com", "https://api.replicate.com/v1"),
        ("https://api.replicate.com/v1/", "https://api.replicate.com/v1"),
        ("http://127.0.0.1:9090/v1", "http://127.0.0.1:9090/v1"),
        ("http://127.0.0.1:9090", "http://127.0.0.1:9090/v1"),
        ("https://proxy.example.com/replicate", "https://proxy.example.com/replicate/v1"),
    ],
)
def test_base_url_ends_in_v1(given, normal):
    """It works with or without /v1."""
    assert made(upstream={"base_url": given}).upstream.base_url == normal


def test_values_are_normalized():
    """Digests, origins, hosts and levels compare as expected."""
    config = made(
        upstream={"trusted_hosts": ["*.Replicate.Delivery", "10.0.0.1"]},
        logs={"level": "WARNING"},
        server={"trusted_proxies": ["10.0.0.0/8", "::1"]},
        teams=[team(origins=["HTTPS://App.example.com:443"], keys=[{"sha256": DIGEST.upper()}])],
    )
    assert config.upstream.trusted_hosts == ("*.replicate.delivery", "10.0.0.1")
    assert config.logs.level == "warning"
    assert [str(network) for network in config.server.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert config.teams[0].origins == ("https://app.example.com",)
    assert config.teams[0].keys[0].digest == DIGEST


@pytest.mark.parametrize("url", ["outputs", "./outputs", "/var/lib/outputs", "file:///var/lib/outputs", "s3://bucket",
                                 "s3://bucket/a/b?endpoint=https://s3.example.com&region=eu-1"])  # fmt: skip
def test_outputs_go_to_a_folder_or_a_bucket(url):
    """Local folders and S3-compatible buckets."""
    assert made(outputs={"url": url, "persist": "all"}).outputs.url == url


@pytest.mark.parametrize("url", ["sqlite:///gateway.db", "sqlite:////var/lib/gateway.db"])
def test_store_is_a_sqlite_file(url):
    """Relative and absolute paths."""
    assert made(store={"url": url}).store.url == url


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user@h/x", "postgresql://h:5433/x", "postgresql://u@a:5432,b:5432/x?target_session_attrs=primary",
        "postgresql:///x?host=/run/postgresql", "postgresql://u@h/x?sslmode=verify-full&sslrootcert=/etc/ca.pem",
    ],
)  # fmt: skip
def test_store_is_a_postgresql_database(url):
    """With libpq's parameters, and the password from elsewhere."""
    assert made(store={"url": url}).store.url == url


@pytest.mark.parametrize("url", ["redis://h", "redis://h:6379/3", "rediss://user@h/0", "postgres://user@h/x"])
def test_unsupported_store_is_refused_with_the_supported_ones(url):
    """An operator who configures another database learns which are supported."""
    message = problems(store={"url": url})["store.url"]
    assert "sqlite:///relative/path.db or sqlite:////absolute/path.db, or postgresql://user@host/database" in message


@pytest.mark.parametrize(
    ("given", "epoch"),
    [
        ("2030-01-31", 1_896_048_000.0),
        ("2030-01-31T01:00:00+01:00", 1_896_048_000.0),
        ("2030-01-31T00:00:00", 1_896_048_000.0),
    ],
)
@pytest.mark.parametrize("quoted", [True, False])
def test_key_expires_at_a_day_or_a_time(tmp_path, given, epoch, quoted):
    """TOML's dates, or strings; UTC by default."""
    value = f'"{given}"' if quoted else given
    text = f'[[teams]]\nname = "acme"\nkeys = [{{sha256 = "{DIGEST}", expires = {value}}}]'
    config = load(write(tmp_path / "c.toml", text), ENVIRON)
    assert config.teams[0].keys[0].expires_at == epoch


@pytest.mark.parametrize("value", ["tomorrow", "90d", 5, True])
def test_other_expiry_values_are_refused(value):
    """A duration has no start in a config."""
    found = problems(teams=[team(keys=[{"sha256": DIGEST, "expires": value}])])
    assert "expected a date or a time" in found["teams[0].keys[0].expires"]
