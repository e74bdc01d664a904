"""Rules between settings."""

import hashlib
from decimal import Decimal
from pathlib import Path

import pytest

from gateway.config import (
    from_mapping,
)
from tests.support.config_files import DIGEST, ENVIRON, TOKEN, made, problems, team, write


@pytest.mark.parametrize(
    ("server", "ops", "clash"),
    [
        ({}, {"port": 8080}, True),
        ({"host": "0.0.0.0"}, {"port": 8080}, True),
        ({"host": "localhost"}, {"port": 8080}, True),
        ({"host": "10.0.0.1"}, {"port": 8080}, False),
        ({"port": 0}, {"port": 0}, False),
        ({}, {}, False),
    ],
)
def test_two_listeners_cannot_share_a_port(server, ops, clash):
    """The second listener would not start."""
    if clash:
        assert list(problems(server=server, ops=ops)) == ["ops.port"]
    else:
        made(server=server, ops=ops)


@pytest.mark.parametrize("source", ["token_env", "token_file"])
def test_ops_token_that_can_be_guessed_is_refused(tmp_path: Path, source: str):
    """Fifteen characters are refused, sixteen are enough. Commands that do not serve do not care."""
    path = tmp_path / "token"
    ops = {source: "OPS" if source == "token_env" else str(path)}
    path.write_text("x" * 15)
    found = problems({"OPS": "x" * 15}, ops=ops)
    assert list(found) == [f"ops.{source}"]
    assert "fewer than 16 characters" in found[f"ops.{source}"]
    assert from_mapping({"ops": ops}, ENVIRON | {"OPS": "x" * 15}, serving=False).ops.token is not None
    path.write_text("x" * 16)
    assert made({"OPS": "x" * 16}, ops=ops).ops.token is not None


def test_public_ops_listener_requires_a_token():
    """Metrics and admin are never open to the network by mistake."""
    assert "is missing: 0.0.0.0 is reachable from other machines" in problems(ops={"host": "0.0.0.0"})["ops.token_env"]
    config = made({"OPS": "s3cret-s3cret-s3cret"}, ops={"host": "0.0.0.0", "token_env": "OPS"})
    assert config.ops.token is not None
    assert config.ops.token.get_secret_value() == "s3cret-s3cret-s3cret"
    made(ops={"host": "::1"})
    made(ops={"host": "localhost"})


def test_operators_token_may_be_in_a_file(tmp_path):
    """A scraper in a container reads the same file. Two sources are refused."""
    path = write(tmp_path / "token", "s3cret-s3cret-s3cret\n")
    config = made(ops={"host": "0.0.0.0", "token_file": str(path)})
    assert config.ops.token is not None
    assert config.ops.token.get_secret_value() == "s3cret-s3cret-s3cret"
    assert problems(ops={"token_file": str(path), "token_env": "OPS"}) == {
        "ops.token_file": "token_env is given too; remove one of them"
    }
    assert problems(ops={"token_file": str(tmp_path / "none"), "host": "::"}) == {
        "ops.token_file": "the file cannot be read: No such file or directory"
    }


def test_tracing_requires_its_extra(monkeypatch):
    """It is reported with the other problems, not as a traceback at start."""
    made(tracing={"enabled": True})
    monkeypatch.setattr("gateway.config.checks.find_spec", lambda name: None)
    assert problems(tracing={"enabled": True}) == {
        "tracing.enabled": "needs the extra otel: pip install 'WHEEL[otel]', or '.[otel]' in a checkout"
    }


def test_drain_seconds_cannot_exceed_the_grace_period():
    """The drain time is part of the grace period."""
    made(server={"drain_seconds": 5, "shutdown_grace_seconds": 5})
    found = problems(server={"drain_seconds": 11})
    assert found == {"server.drain_seconds": "must not exceed shutdown_grace_seconds (10)"}


def test_names_and_keys_are_unique():
    """Equal names of teams or keys, or one key for two teams, would be ambiguous."""
    key = "the-same-key-for-two-teams-at-once"
    found = problems(
        {"KEY": key},
        teams=[
            team(keys=[{"key_env": "KEY"}, {"sha256": DIGEST}]),
            team(name="b", keys=[{"sha256": hashlib.sha256(key.encode()).hexdigest()}]),
            team(),
        ],
    )
    assert found == {
        "teams[0].keys[1].name": "same name as teams[0].keys[0].name; names of a team's keys must be unique",
        "teams[1].keys[0]": "same key as teams[0].keys[0]; each key may be listed once",
        "teams[2].name": "same name as teams[0].name; names of teams must be unique",
    }


def test_accounts_token_is_refused_as_a_key():
    """A caller with the token would bypass the gateway."""
    found = problems({"KEY": TOKEN}, teams=[team(keys=[{"key_env": "KEY"}])])
    assert "is the account's Replicate token" in found["teams[0].keys[0]"]


def test_key_cannot_exceed_its_team():
    """Scopes, models and origins outside of those of the team are a mistake."""
    found = problems(
        teams=[
            team(
                models=["acme/*"],
                origins=["https://a.com"],
                keys=[
                    {
                        "sha256": DIGEST,
                        "scopes": ["read", "train"],
                        "models": ["acme/x", "meta/*"],
                        "origins": ["https://a.com", "https://b.com"],
                    }
                ],
            )
        ]
    )
    assert found == {
        "teams[0].keys[0].scopes": "train: outside of the team's scopes (read, predict, files)",
        "teams[0].keys[0].models": "meta/*: outside of the team's models (acme/*)",
        "teams[0].keys[0].origins": "https://b.com: outside of the team's origins (https://a.com)",
    }


@pytest.mark.parametrize("name", ["scopes", "models", "origins"])
def test_empty_list_of_a_key_is_refused(name):
    """It could mean none, or all."""
    found = problems(teams=[team(keys=[{"sha256": DIGEST, name: []}])])
    assert "expected at least one entry" in found[f"teams[0].keys[0].{name}"]


@pytest.mark.parametrize(
    ("price", "message"),
    [
        ({}, "has no price"),
        ({"usd_per_run": 1, "usd_per_output": 1}, "has several prices (usd_per_run, usd_per_output)"),
        ({"usd_per_second": 1, "hardware": "cpu"}, "has several prices (usd_per_second, hardware)"),
        ({"usd_per_run": 1, "usd_per_input_token": 1}, "has several prices (usd_per_run, usd_per_input_token)"),
        ({"usd_per_run": 0}, None),
        ({"usd_per_input_token": 1, "usd_per_output_token": 2}, None),
        ({"usd_per_input_token": 1, "usd_per_output_token": 0}, None),
        ({"usd_per_output_token": 2}, None),
        ({"hardware": "gpu-h100", "usd_per_output_token": 2}, "has several prices (hardware, usd_per_output_token)"),
        ({"hardware": "gpu-h1000", "usd_per_run": 1}, "has several prices (hardware, usd_per_run)"),
    ],
)
def test_price_has_exactly_one_kind(price, message):
    """None or several would be ambiguous; both token prices count as one."""
    entry = {"prices": {"models": [{"model": "a/b", **price}]}}
    if message is None:
        made(**entry)
    else:
        assert message in problems(**entry)["prices.models[0]"]


def test_price_of_input_tokens_alone_is_refused():
    """Output, which costs more, would be free."""
    found = problems(prices={"models": [{"model": "a/b", "usd_per_input_token": 1}]})
    assert set(found) == {"prices.models[0].usd_per_input_token"}
    assert "output would be free" in found["prices.models[0].usd_per_input_token"]


def test_token_is_not_sent_in_clear_text_unless_the_config_says_so():
    """Plain http is for a simulator on this machine, or in a network that the operator names."""
    found = problems(upstream={"base_url": "http://api.replicate.com"})
    assert "the account's token would be sent unencrypted" in found["upstream.base_url"]
    made(upstream={"base_url": "http://simulator:9090", "allow_http": True})
    for local in ("http://127.0.0.1:9090", "http://localhost:9090/v1", "http://[::1]:9090"):
        made(upstream={"base_url": local})


@pytest.mark.parametrize(
    ("sku", "hint"),
    [("gpu-h1000", "did you mean gpu-h100?"), ("tpu-v5", "known: cpu, "), ("gpu-l40s-3x", "did you mean gpu-l40s-")],
)
def test_hardware_without_a_price_is_refused(sku, hint):
    """A typo would make a run free or unpriceable."""
    found = problems(prices={"default_hardware": sku, "models": [{"model": "a/b", "hardware": sku}]})
    assert set(found) == {"prices.default_hardware", "prices.models[0].hardware"}
    assert all(f'"{sku}" has no built-in price; {hint}' in message for message in found.values())
    assert found["prices.models[0].hardware"].endswith("; for other hardware set usd_per_second")
    made(prices={"default_hardware": "cpu", "models": [{"model": "a/b", "hardware": "gpu-a40-large"}]})


def test_malformed_sku_is_reported_once():
    """The format is reported, and not also the missing price."""
    assert "expected a hardware SKU" in problems(prices={"default_hardware": "GPU"})["prices.default_hardware"]


@pytest.mark.parametrize("price", ["0.0000000000000000001", "1e-400", "0." + "3" * 30])
def test_price_with_too_many_decimals_is_refused(price):
    """Sums of prices stay exact."""
    found = problems(prices={"models": [{"model": "a/b", "usd_per_run": Decimal(price)}]})
    assert "at most 18 decimal places" in found["prices.models[0].usd_per_run"]


def test_budget_finer_than_a_micro_dollar_is_refused():
    """It would silently be rounded."""
    found = problems(teams=[team(budget_usd_per_day=Decimal("0.1000001"))])
    assert "expected at most 6 decimal places (micro-dollars)" in found["teams[0].budget_usd_per_day"]


def test_budget_webhook_requires_https():
    """The spend of a team is confidential, unless webhooks.allow_http is set."""
    hook = "https://hooks.example.com/a?b=c"
    assert made(teams=[team(budget_webhook=hook)]).teams[0].budget_webhook == hook
    for wrong in ("hooks.example.com", "ftp://x.example", "https://u:p@x.example", "https://x.example/#a", "", 5):
        assert list(problems(teams=[team(budget_webhook=wrong)])) == ["teams[0].budget_webhook"]
    plain = [team(budget_webhook="http://x.example")]
    assert "webhooks.allow_http" in problems(teams=plain)["teams[0].budget_webhook"]
    made(teams=plain, webhooks={"allow_http": True})


def test_budget_thresholds_are_percentages():
    assert made(teams=[team()]).teams[0].budget_thresholds == (80, 100)
    assert made(teams=[team(budget_thresholds=[])]).teams[0].budget_thresholds == ()
    for wrong in (0, 101, 80.5, True, "80"):
        assert list(problems(teams=[team(budget_thresholds=[wrong])])) == ["teams[0].budget_thresholds[0]"]


def test_outputs_persist_requires_a_url():
    """The problem is reported at start, not when outputs are lost."""
    assert "requires outputs.url" in problems(outputs={"persist": "all"})["outputs.persist"]
    made(outputs={"persist": "off"})


def test_base_url_cannot_be_the_public_url():
    """The gateway would call itself."""
    found = problems(server={"public_url": "https://g.example.com"}, upstream={"base_url": "https://g.example.com/v1/"})
    assert list(found) == ["upstream.base_url"]


def test_postgresql_requires_its_extra(monkeypatch):
    """It is reported with the other problems, not as a traceback at start."""
    monkeypatch.setattr("gateway.config.checks.find_spec", lambda name: None)
    assert problems(store={"url": "postgresql://gateway@db/gateway"}) == {
        "store.url": "needs the extra postgres: pip install 'WHEEL[postgres]', or '.[postgres]' in a checkout"
    }


def test_folder_of_outputs_with_postgresql_must_be_shared_by_the_nodes():
    """Else a node would serve 404 for what another one has copied."""
    store = {"url": "postgresql://gateway@db/gateway"}
    assert "outputs.shared = true" in problems(store=store, outputs={"url": "outputs"})["outputs.url"]
    for outputs in ({"url": "outputs", "shared": True}, {"url": "s3://bucket"}, {}):
        assert made(store=store, outputs=outputs).outputs.shared == outputs.get("shared", False)
    assert made(outputs={"url": "outputs"}).outputs.url == "outputs"
