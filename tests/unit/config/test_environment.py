"""Settings from environment variables `GATEWAY__SECTION__KEY`."""

from decimal import Decimal
from typing import Any

import pytest

from gateway.config import Config, ConfigError, from_mapping, load_with_places
from tests.support.config_values import AROUND, ENVIRON, VALUES, config_of, keys_of_the_config

HEX = "a" * 64


def made(variables: dict[str, str], **sections: Any) -> Config:
    return from_mapping(sections, ENVIRON | variables)


def refused(variables: dict[str, str], **sections: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        made(variables, **sections)
    return [str(problem) for problem in caught.value.problems]


def written(value: Any) -> str:
    """Write a TOML value as a variable has it."""
    match value:
        case bool():
            return "true" if value else "false"
        case list():
            quoted = [written(item) if isinstance(item, int | dict) else f'"{item}"' for item in value]
            return f"[{', '.join(quoted)}]"
        case dict():
            inner = (f'"{name}": {written(item) if not isinstance(item, str) else f"{chr(34)}{item}{chr(34)}"}'
                     for name, item in value.items())  # fmt: skip
            return f"{{{', '.join(inner)}}}"
        case _:
            return str(value)


@pytest.mark.parametrize("key", tuple(keys_of_the_config()))
@pytest.mark.parametrize("which", [0, 1])
def test_every_key_of_a_section_can_be_set_and_replaces_the_file(key, which, tmp_path):
    """The variable and the key of the file mean the same value."""
    section, name = key.split(".")
    for file in ("one", "two"):
        (tmp_path / file).write_text("token-token-token")
    value = VALUES[key][which]
    value = value.replace("{folder}", str(tmp_path)) if isinstance(value, str) else value
    around = {place: dict(table) for place, table in AROUND.get(key, {}).items()}
    expected = {**around, section: {**around.get(section, {}), name: value}}
    variables = {f"GATEWAY__{section}__{name}".upper(): written(value)}
    assert made(variables, **around) == config_of(**expected)
    other = VALUES[key][1 - which]
    other = other.replace("{folder}", str(tmp_path)) if isinstance(other, str) else other
    replaced = {**around, section: {**around.get(section, {}), name: other}}
    assert made(variables, **replaced) == config_of(**expected)


def test_numbers_booleans_and_lists_are_read_exactly():
    """Prices are exact; lists are JSON, also of tables."""
    config = made(
        {
            "GATEWAY__SERVER__PORT": " 8081 ",
            "GATEWAY__SERVER__SHUTDOWN_GRACE_SECONDS": "2.5",
            "GATEWAY__CACHE__ENABLED": "False",
            "GATEWAY__CACHE__RANDOM_SEEDS": "[-1, 0]",
            "GATEWAY__SERVER__TRUSTED_PROXIES": '["10.0.0.0/8", "::1"]',
            "GATEWAY__PRICES__MODELS": '[{"model": "a/b", "usd_per_second": 0.001525}]',
        }
    )
    assert (config.server.port, config.server.shutdown_grace_seconds) == (8081, 2.5)
    assert (config.cache.enabled, config.cache.random_seeds) == (False, (-1, 0))
    assert [str(network) for network in config.server.trusted_proxies] == ["10.0.0.0/8", "::1/128"]
    assert config.prices.models[0].usd_per_second == Decimal("0.001525")


def test_empty_variable_counts_as_not_set():
    """Compose passes `${PORT:-}` as an empty text."""
    assert made({"GATEWAY__SERVER__PORT": "", "GATEWAY__SERVER__HOST": "  "}) == made({})


def test_other_variables_of_the_gateway_are_left_alone():
    """GATEWAY_CONFIG, and what Kubernetes adds for a Service named gateway."""
    others = {"GATEWAY_CONFIG": "x", "GATEWAY_PORT": "tcp://10.0.0.1:80", "GATEWAY_SERVICE_HOST": "10.0.0.1"}
    assert made(others) == made({})


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("GATEWAY__SERVR__HOST", "unknown; did you mean GATEWAY__SERVER__HOST?"),
        ("GATEWAY__SERVER__HOSTS", "unknown; did you mean GATEWAY__SERVER__HOST?"),
        ("gateway__server__host", "unknown; did you mean GATEWAY__SERVER__HOST?"),
        ("GATEWAY__SERVER_HOST", "unknown; did you mean GATEWAY__SERVER__HOST?"),
        ("GATEWAY__X", "unknown; expected GATEWAY__SECTION__KEY, such as GATEWAY__SERVER__HOST"),
        ("GATEWAY__TEAMS", "teams are set in the file only"),
        ("GATEWAY__TEAMS__0__NAME", "teams are set in the file only"),
        ("GATEWAY__ISSUERS__0__NAME", "issuers are set in the file only"),
        ("GATEWAY__UPSTREAM__TOKEN", "unknown; did you mean GATEWAY__UPSTREAM__TOKEN_"),
    ],
)
def test_unknown_name_is_refused_with_the_one_that_was_meant(name, hint):
    """A typo would have no effect and nobody would notice. The value is not shown."""
    (problem,) = refused({name: "s3cret-value"})
    assert problem.startswith(f"{name}: {hint}")
    assert "s3cret" not in problem


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SERVER__PORT", "80a", "server.port: expected a port number from 0 (a free one) to 65535, got \"80a\""),
        ("SERVER__PORT", "70000", "server.port: expected at most 65535, got 70000"),
        ("CACHE__ENABLED", "maybe", "cache.enabled: expected true or false, got \"maybe\""),
        ("SERVER__TRUSTED_PROXIES", "10.0.0.0/8", "server.trusted_proxies: expected a list"),
        ("SERVER__TRUSTED_PROXIES", '{"a": 1}', "server.trusted_proxies: expected a list"),
        ("SERVER__DRAIN_SECONDS", "NaN", "server.drain_seconds: expected a number of seconds, 0 or more"),
        ("SERVER__DRAIN_SECONDS", "99", "server.drain_seconds: must not exceed shutdown_grace_seconds (10)"),
    ],
)  # fmt: skip
def test_wrong_value_is_reported_with_the_variable(name, value, message):
    """The place to fix is the variable, not the file."""
    (problem,) = refused({f"GATEWAY__{name}": value})
    assert problem.startswith(f"GATEWAY__{name}  {message}")


def test_section_that_is_no_table_is_reported_as_such():
    """An override does not hide the mistake of the file."""
    assert refused({"GATEWAY__SERVER__PORT": "1"}, server=5) == ["server: expected a table, got 5"]


def test_replaced_values_of_the_file_are_noted(tmp_path):
    """An operator who edits the file sees why nothing changes. An equal value is no news."""
    path = tmp_path / "config.toml"
    path.write_text('[server]\nhost = "10.0.0.1"\nport = 8081\n[store]\nurl = "sqlite:///x.db"\n')
    variables = {
        "GATEWAY__SERVER__HOST": "0.0.0.0",
        "GATEWAY__SERVER__PORT": "8081",
        "GATEWAY__LOGS__FORMAT": "json",
        "GATEWAY__STORE__URL": "sqlite:////data/gateway.db",
    }
    config, _, notes = load_with_places(path, ENVIRON | variables)
    assert (config.server.host, config.logs.format) == ("0.0.0.0", "json")
    assert [str(note) for note in notes] == [
        f"{path}:2  server.host: is replaced by the environment variable GATEWAY__SERVER__HOST",
        f"{path}:5  store.url: is replaced by the environment variable GATEWAY__STORE__URL",
    ]
