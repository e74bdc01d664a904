"""Warnings about valid but doubtful settings."""

from typing import Any

import pytest

from gateway.config import from_mapping, in_container, unreachable_in_container, warnings

NOW = 1_800_000_000.0
DIGEST = "ab" * 32


def warned(environ: dict[str, str] | None = None, /, **sections: Any) -> dict[str, str]:
    sections = {"teams": [{"name": "acme"}], **sections}
    config = from_mapping(sections, {"REPLICATE_API_TOKEN": "r8_0123456789abc"} | (environ or {}))
    return {problem.path: problem.message for problem in warnings(config, NOW)}


def test_plain_config_has_no_warnings():
    """Warnings are for exceptions."""
    assert warned() == {}


@pytest.mark.parametrize(
    ("sections", "path", "words"),
    [
        ({"teams": []}, "teams", "every request will be refused"),
        (
            {"server": {"public_url": "http://g.example.com"}},
            "server.public_url",
            "stored by the gateway arrive as strings",
        ),
        ({"limits": {"max_bodies_bytes": 1_000_000}}, "limits.max_bodies_bytes", "smaller than server.max_body_bytes"),
        ({"server": {"host": "0.0.0.0"}}, "server.public_url", "is not set"),
        ({"store": {"password_env": "REPLICATE_API_TOKEN"}}, "store.password_env", "SQLite has no password"),
        ({"store": {"listen_url": "postgresql://g@db/g"}}, "store.listen_url", "is not used"),
        (
            {"store": {"url": "postgresql://g@localhost:6432/g", "listen_url": "postgresql://g@db/g"}},
            "store.listen_url",
            "without TLS",
        ),
        ({"store": {"url": "postgresql://g@db.example.com/g?sslmode=require"}}, "store.url", "?sslmode=verify-full"),
        ({"store": {"url": "postgresql://g@10.0.0.1:5432,10.0.0.2/g"}}, "store.url", "?sslmode=verify-full"),
        ({"transfers": {"max_downloads": 32}}, "transfers.max_per_team", "all teams together have 32"),
        ({"transfers": {"max_per_team": 8}}, "transfers.max_per_public_key", "one visitor of a page"),
        ({"server": {"trusted_proxies": ["0.0.0.0/0"]}}, "server.trusted_proxies", "any caller can forge"),
        (
            {"upstream": {"base_url": "http://r.example.com", "allow_http": True}},
            "upstream.base_url",
            "token is sent unencrypted",
        ),
        (
            {"server": {"public_url": "https://g.example.com"}},
            "server.public_url",
            "every caller has the proxy's address",
        ),
        ({"upstream": {"creates_per_minute": 6000}}, "upstream.creates_per_minute", "6000 is above the 600 a minute"),
        (
            {"teams": [{"name": "a", "predictions_per_minute": 601}]},
            "teams[0].predictions_per_minute",
            "601 is above upstream.creates_per_minute (600), which is reached first",
        ),
        (
            {"upstream": {"creates_per_minute": 6}, "teams": [{"name": "a", "predictions_per_minute": 7}]},
            "teams[0].predictions_per_minute",
            "7 is above upstream.creates_per_minute (6), which is reached first",
        ),
        ({"upstream": {"requests_per_minute": 3001}}, "upstream.requests_per_minute", "3001 is above the 3000"),
        (
            {"prices": {"models": [{"model": "a/b", "usd_per_output_token": 1}]}},
            "prices.models[0].usd_per_output_token",
            "so input is free",
        ),
        (
            {"teams": [{"name": "a", "budget_usd_per_day": 5, "budget_usd_per_month": 1}]},
            "teams[0].budget_usd_per_month",
            "1 is below budget_usd_per_day (5), which has no effect",
        ),
        (
            {"teams": [{"name": "a", "per_user": {"seconds_per_day": 5, "seconds_per_month": 1}}]},
            "teams[0].per_user.seconds_per_month",
            "is below seconds_per_day",
        ),
        (
            {"teams": [{"name": "a", "budget_usd_per_day": 5, "per_user": {"budget_usd_per_day": 50}}]},
            "teams[0].per_user.budget_usd_per_day",
            "50 is above the team's 5, which is reached first",
        ),
        (
            {
                "tags": {"keys": ["project"]},
                "teams": [
                    {"name": "a", "budget_usd_per_month": 5, "per_tag": {"project:x/y.z": {"budget_usd_per_month": 6}}}
                ],
            },
            'teams[0].per_tag."project:x/y.z".budget_usd_per_month',
            "6 is above the team's 5, which is reached first",
        ),
        (
            {"tags": {"keys": ["project"]}, "teams": [{"name": "a", "per_tag": {"project": {"burst": 5}}}]},
            "teams[0].per_tag.project.burst",
            "has no effect without predictions_per_minute",
        ),
        (
            {"teams": [{"name": "a", "requests_per_minute": 5, "per_address": {"requests_per_minute": 6}}]},
            "teams[0].per_address.requests_per_minute",
            "6 is above the team's 5",
        ),
        (
            {
                "teams": [
                    {
                        "name": "a",
                        "keys": [{"sha256": DIGEST, "seconds_per_day": 5, "per_user": {"seconds_per_day": 6}}],
                    }
                ]
            },
            "teams[0].keys[0].per_user.seconds_per_day",
            "6.0 is above the key's 5.0",
        ),
        ({"outputs": {"url": "o", "ttl_seconds": 60}}, "outputs.ttl_seconds", "shorter than cache.ttl_seconds"),
        (
            {"server": {"public_url": "http://127.0.0.1:8080"}, "outputs": {"url": "o"}},
            "outputs.url",
            "cache hits arrive as strings",
        ),
        (
            {"outputs": {"url": "o", "persist": "all"}},
            "store.retain_data_seconds",
            "only copies of shared results live longer",
        ),
        (
            {"cache": {"share": "all"}, "teams": [{"name": "a"}, {"name": "b"}]},
            "cache.share",
            "what other teams have run",
        ),
        (
            {"webhooks": {"allow_private_addresses": True}},
            "webhooks.allow_private_addresses",
            "your private network",
        ),
        ({"webhooks": {"allow_http": True}}, "webhooks.allow_http", "be sent unencrypted"),
        ({"webhooks": {"max_queued_total": 9999}}, "webhooks.max_queued_total", "take the places of all others"),
        ({"teams": [{"name": "a", "burst": 3}]}, "teams[0].burst", "has no effect"),
        ({"teams": [{"name": "a", "origins": ["*"]}]}, "teams[0].origins", "any web page"),
        ({"teams": [{"name": "a", "origins": ["https://*.com"]}]}, "teams[0].origins", "sites of strangers"),
        ({"teams": [{"name": "a", "origins": ["https://*.co.uk:81"]}]}, "teams[0].origins", "sites of strangers"),
        ({"teams": [{"name": "a", "origins": ["https://*.vercel.app"]}]}, "teams[0].origins", "sites of strangers"),
        ({"teams": [{"name": "a", "public_sees": "team"}]}, "teams[0].public_sees", "of the whole team"),
        ({"teams": [{"name": "a", "public_webhooks": True}]}, "teams[0].public_webhooks", "any public address"),
        ({"teams": [{"name": "a", "unbound_tokens": True}]}, "teams[0].unbound_tokens", "outside of your pages"),
        (
            {"teams": [{"name": "a", "keys": [{"sha256": DIGEST, "expires": "2020-01-01"}]}]},
            "teams[0].keys[0].expires",
            "is in the past",
        ),
        (
            {
                "teams": [
                    {
                        "name": "a",
                        "burst": 1,
                        "seconds_per_day": 5,
                        "requests_per_minute": 5,
                        "keys": [{"sha256": DIGEST, "requests_per_minute": 6, "burst": 2}],
                    }
                ]
            },
            "teams[0].keys[0].requests_per_minute",
            "6 is above the team's 5",
        ),
        (
            {
                "teams": [
                    {
                        "name": "a",
                        "seconds_per_day": 5,
                        "keys": [{"sha256": DIGEST, "per_user": {"seconds_per_day": 6}}],
                    }
                ]
            },
            "teams[0].keys[0].per_user.seconds_per_day",
            "6.0 is above the team's 5.0",
        ),
        (
            {
                "teams": [
                    {
                        "name": "a",
                        "seconds_per_day": 9,
                        "per_user": {"seconds_per_day": 5},
                        "keys": [{"sha256": DIGEST, "per_user": {"seconds_per_day": 6}}],
                    }
                ]
            },
            "teams[0].keys[0].per_user.seconds_per_day",
            "6.0 is above the team's per_user of 5.0",
        ),
        (
            {"teams": [{"name": "a", "budget_usd_per_month": 1, "per_user": {"budget_usd_per_day": 5}}]},
            "teams[0].per_user.budget_usd_per_day",
            "5 is above the team's 1 a month",
        ),
        (
            {"teams": [{"name": "a", "keys": [{"sha256": DIGEST, "origins": ["https://a.com"]}]}]},
            "teams[0].keys[0].per_address",
            "a single visitor can use up its limits",
        ),
        (
            {
                "teams": [
                    {
                        "name": "a",
                        "scopes": ["read", "admin"],
                        "per_address": {"requests_per_minute": 1},
                        "keys": [{"sha256": DIGEST, "origins": ["https://a.com"]}],
                    }
                ]
            },
            "teams[0].keys[0].scopes",
            "admin: too powerful for a key in a public page",
        ),
    ],
)
def test_doubtful_setting_causes_a_warning(sections, path, words):
    """The operator learns of it before callers do."""
    found = warned(**sections)
    assert list(found) == [path]
    assert words in found[path]


@pytest.mark.parametrize(
    ("server", "is_warned"),
    [({}, True), ({"host": "localhost"}, True), ({"host": "0.0.0.0"}, False), ({"port": 0}, False)],
)
def test_listener_on_loopback_is_unreachable_in_a_container(server, is_warned):
    """The published port reaches nothing, and the health check, which asks from inside, succeeds."""
    config = from_mapping({"server": server}, {"REPLICATE_API_TOKEN": "r8_0123456789abc"})
    problem = unreachable_in_container(config)
    assert (problem is not None) == is_warned
    if problem is not None:
        assert (problem.path, "GATEWAY__SERVER__HOST=0.0.0.0" in problem.message) == ("server.host", True)


def test_kubernetes_is_a_container(monkeypatch):
    """Its variable is in every pod."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert in_container()


@pytest.mark.parametrize(
    "sections",
    [
        {"server": {"public_url": "http://127.0.0.1:8080"}},
        {"store": {"url": "postgresql://g@db.example.com/g?sslmode=verify-full"}},
        {"store": {"url": "postgresql:///g?host=/run/postgresql"}},
        {"store": {"url": "postgresql://localhost:5433/g"}},
        {"server": {"public_url": "https://g.example.com", "host": "0.0.0.0", "trusted_proxies": ["10.0.0.1"]}},
        {"upstream": {"base_url": "http://localhost:9090/v1", "creates_per_minute": 6000}},
        {"prices": {"models": [{"model": "a/b", "usd_per_input_token": 0, "usd_per_output_token": 1}]}},
        {"teams": [{"name": "a", "budget_usd_per_day": 5, "budget_usd_per_month": 5}]},
        {"upstream": {"creates_per_minute": 60}, "teams": [{"name": "a", "predictions_per_minute": 60}]},
        {"upstream": {"base_url": "http://localhost:9090/v1"}},
        {"outputs": {"url": "o", "persist": "off", "ttl_seconds": 60}},
        {
            "outputs": {"url": "o"},
            "server": {"public_url": "https://g.example.com", "trusted_proxies": ["10.0.0.1"]},
        },
        {"outputs": {"url": "o", "persist": "off"}, "server": {"public_url": "http://127.0.0.1:8080"}},
        {"outputs": {"url": "o", "persist": "all"}, "store": {"retain_data_seconds": 86400}},
        {"teams": [{"name": "a", "keys": [{"sha256": DIGEST, "expires": "2099-01-01"}]}]},
    ],
)
def test_sound_setting_causes_no_warning(sections):
    """Permanent warnings are ignored."""
    assert warned(**sections) == {}


def test_world_readable_token_file_causes_a_warning(tmp_path):
    """The mode of the file is checked."""
    path = tmp_path / "token"
    path.write_text("r8_0123456789abc")
    path.chmod(0o644)
    assert "chmod 600" in warned(upstream={"token_file": str(path)})["upstream.token_file"]
    path.chmod(0o600)
    assert warned(upstream={"token_file": str(path)}) == {}


def test_short_key_causes_a_warning_that_does_not_show_it():
    """Keys in variables may have any format, but not any length."""
    teams = [{"name": "acme", "keys": [{"key_env": "KEY"}]}]
    found = warned({"KEY": "letmein"}, teams=teams)
    assert "can be guessed" in found["teams[0].keys[0].key_env"]
    assert "letmein" not in str(found)
    assert warned({"KEY": "rgw_abcdefghijkl_" + "a1B2" * 8}, teams=teams) == {}


@pytest.mark.parametrize(
    ("hook", "form", "wanted"),
    [
        ("https://hooks.slack.com/services/T/B/x", "standard", "slack"),
        ("https://prod-1.westeurope.logic.azure.com:443/workflows/x?sig=y", "slack", "teams"),
        ("https://hooks.slack.com/services/T/B/x", "slack", None),
        ("https://hooks.slack.com.example.com/x", "standard", None),
    ],
)
def test_budget_alerts_in_a_form_that_the_chat_does_not_read_are_warned_of(hook: str, form: str, wanted: str | None):
    """It would refuse each of them, hours later and in the log only."""
    found = warned(teams=[{"name": "acme", "budget_webhook": hook, "budget_webhook_format": form}])
    path = "teams[0].budget_webhook_format"
    assert (path in found) == (wanted is not None)
    assert wanted is None or f'in the form "{wanted}" only' in found[path]
    assert not any("sig=y" in message or "T/B" in message for message in found.values())
