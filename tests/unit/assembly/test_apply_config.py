"""What a reload replaces: every config key that is documented as reloadable is in the settings of some service."""

from typing import Any

import pytest

from gateway.assembly.apply_config import Live, live_settings, prepare
from gateway.config import Config
from gateway.config.changes import LIVE, RESTART
from gateway.config.issuers import Issuer
from gateway.config.teams import Team, TeamKey
from tests.support.config_values import changed, config_of, keys_of_the_config

LIMITS: dict[str, tuple[Any, Any]] = {
    "requests_per_minute": (10, 20),
    "predictions_per_minute": (10, 20),
    "burst": (1, 2),
    "concurrent_predictions": (1, 2),
    "seconds_per_day": (10, 20),
    "seconds_per_month": (10, 20),
    "budget_usd_per_day": (1, 2),
    "budget_usd_per_month": (1, 2),
    "per_user": ({"burst": 1}, {"burst": 2}),
    "per_address": ({"burst": 1}, {"burst": 2}),
}
OF_TEAMS = LIMITS | {
    "name": ("red", "blue"),
    "scopes": (["read"], ["predict"]),
    "models": (["a/*"], ["b/*"]),
    "origins": (["https://a.example.com"], ["https://b.example.com"]),
    "weight": (1, 2),
    "may_assert_deterministic": (False, True),
    "honor_cache_control": (False, True),
    "unbound_tokens": (False, True),
    "public_sees": ("own", "team"),
    "public_webhooks": (False, True),
    "max_wait_seconds": (1, 2),
    "max_issued_keys": (1, 2),
    "budget_webhook": ("https://a.example.com", "https://b.example.com"),
    "budget_webhook_format": ("slack", "teams"),
    "budget_thresholds": ([80], [50, 100]),
    "keys": ([], [{"sha256": "a" * 64}]),
    "per_tag": ({}, {"project": {"burst": 1}}),
}
OF_KEYS = LIMITS | {
    "name": ("one", "two"),
    "key_env": ("KEY_ONE", "KEY_TWO"),
    "sha256": ("a" * 64, "b" * 64),
    "scopes": (["read"], ["predict"]),
    "models": (["a/*"], ["b/*"]),
    "origins": (["https://a.example.com"], ["https://b.example.com"]),
    "expires": ("2030-01-01", "2031-01-01"),
}

PAGES = ["https://a.example.com", "https://b.example.com"]
OF_ISSUERS = LIMITS | {
    "issuer": ("https://a.example.com", "https://b.example.com"),
    "name": ("one", "two"),
    "audience": ("one", ["one", "two"]),
    "jwks_url": ("https://a.example.com/keys", "https://b.example.com/keys"),
    "algorithms": (["RS256"], ["ES256"]),
    "team": ("red", "blue"),
    "team_claim": ("org", "group"),
    "teams": ({"a": "red"}, {"b": "red"}),
    "console": (
        {"client_id": "one", "operator_claim": "groups", "operators": ["a"]},
        {"client_id": "one", "operator_claim": "groups", "operators": ["a", "b"]},
    ),
    "user_claim": ("sub", "uid"),
    "user_prefix": ("", "a:"),
    "scope_claim": ("scope", "permissions"),
    "scopes": (["read"], ["predict"]),
    "models": (["a/*"], ["b/*"]),
    "origins": (PAGES[:1], "none"),
    "leeway_seconds": (0, 30),
    "allow_private_addresses": (False, True),
    "jwks_ttl_seconds": (60, 600),
    "jwks_stale_seconds": (6000, 60_000),
    "jwks_max_bytes": (1000, 2000),
    "jwks_max_keys": (10, 20),
}


def values(live: Live) -> dict[str, Any]:
    return {name: getattr(live, name).value for name in Live.__struct_fields__}


def given(config: Config) -> dict[str, Any]:
    """Reload with a config; return the settings of every concept after it."""
    live = live_settings(config_of())
    before = values(live)
    put = prepare(live, config)
    assert values(live) == before, "something was replaced before all was computed"
    put()
    return values(live)


# The log level belongs to no service: it is set where changes are logged.
@pytest.mark.parametrize("key", [key for key in keys_of_the_config() if key != "logs.level"])
def test_key_is_reloadable_or_listed_as_needing_a_restart(key, tmp_path):
    """A change that needs a restart is reported as such."""
    section, name = key.split(".")
    old, new = changed(key, tmp_path)
    if name in LIVE.get(section, ()):
        assert given(old) != given(new)
    else:
        assert name in RESTART[section]


@pytest.mark.parametrize("name", Team.model_fields)
def test_every_field_of_a_team_is_applied_on_reload(name):
    """No field of a team needs a restart."""
    old, new = (config_of(tags={"keys": ["project"]}, teams=[{"name": "red", name: value}]) for value in OF_TEAMS[name])
    assert given(old) != given(new)


@pytest.mark.parametrize("name", TeamKey.model_fields)
def test_every_field_of_a_key_is_applied_on_reload(name):
    """No field of a key needs a restart."""

    def with_key(value: Any) -> Any:
        secret = {} if name == "key_env" else {"sha256": "c" * 64}
        return config_of(teams=[{"name": "red", "scopes": ["read", "predict"], "keys": [{**secret, name: value}]}])

    old, new = map(with_key, OF_KEYS[name])
    assert given(old) != given(new)


@pytest.mark.parametrize("name", Issuer.model_fields)
def test_every_field_of_an_issuer_is_applied_on_reload(name):
    """No field of an issuer needs a restart."""

    def with_issuer(value: Any) -> Any:
        issuer: dict[str, Any] = {"issuer": "https://id.example.com", "name": "id", "audience": "gateway"}
        issuer |= {"team_claim": "org", "teams": {"a": "red"}} if name.startswith("team_") or name == "teams" else {}
        issuer |= {} if "teams" in issuer else {"team": "red"}
        teams = [{"name": team, "origins": PAGES} for team in ("red", "blue")]
        return config_of(teams=teams, issuers=[issuer | {"jwks_ttl_seconds": 60, name: value}])

    old, new = map(with_issuer, OF_ISSUERS[name])
    assert given(old) != given(new)
