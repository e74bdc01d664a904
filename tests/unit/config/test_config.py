"""Loading a config: values, and a report of every problem."""

import hashlib
import os
import pickle
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import (
    Cache,
    CacheRule,
    Config,
    ConfigError,
    ModelPrice,
    Prices,
    Problem,
    Server,
    Team,
    TeamKey,
    TeamLimits,
    Upstream,
    find,
    from_mapping,
    load,
)

TOKEN = "r8_0123456789abcdefghijklmnopqrstuvwxyz0"
ENVIRON = {"REPLICATE_API_TOKEN": TOKEN}
DIGEST = "ab" * 32


def made(environ: dict[str, str] | None = None, **sections: Any) -> Config:
    return from_mapping(sections, ENVIRON | (environ or {}))


def problems(environ: dict[str, str] | None = None, /, **sections: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        made(environ, **sections)
    assert all(isinstance(problem, Problem) for problem in caught.value.problems)
    return {problem.path: problem.message for problem in caught.value.problems}


def team(**settings: Any) -> dict[str, Any]:
    return {"name": "acme", **settings}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_empty_config_has_the_defaults(tmp_path):
    """An empty file and a token in the environment are enough."""
    config = load(write(tmp_path / "c.toml", ""), ENVIRON)
    assert (config.server.host, config.server.port, config.server.public_url) == ("127.0.0.1", 8080, None)
    assert (config.server.max_body_bytes, config.server.max_upload_bytes) == (16 * 2**20, 104_857_600)
    assert config.server.shutdown_grace_seconds == 10
    assert (config.ops.host, config.ops.port, config.ops.token) == ("127.0.0.1", 9464, None)
    upstream = config.upstream
    assert upstream.base_url == "https://api.replicate.com/v1"
    assert upstream.token.get_secret_value() == TOKEN
    assert set(upstream.trusted_hosts) == {
        "*.replicate.com", "*.replicate.net", "replicate.delivery", "*.replicate.delivery",
    }  # fmt: skip
    assert (upstream.creates_per_minute, upstream.requests_per_minute) == (600, 3000)
    assert (upstream.adopt_wait_seconds, upstream.webhooks) == (20, "auto")
    assert (config.store.url, config.store.retain_days, config.store.retain_data_seconds) == (
        "sqlite:///gateway.db", 30, 3600,
    )  # fmt: skip
    assert (config.cache.enabled, config.cache.share, config.cache.random_seeds) == (True, "team", (-1,))
    assert config.cache.metadata_ttl_seconds == 60
    assert (config.outputs.url, config.outputs.persist) == (None, "shared")
    assert config.streams.heartbeat_seconds == 15
    assert not config.webhooks.allow_http
    assert not config.webhooks.allow_private_addresses
    assert config.prices.unknown == "estimate"
    assert (config.logs.format, config.logs.level) == ("console", "info")
    assert config.teams == ()


def test_team_with_only_a_name_has_no_limits():
    """It has the default scopes and no limits."""
    (acme,) = made(teams=[team()]).teams
    assert acme.scopes == ("read", "predict", "files")
    assert acme.models is None
    others = {"name", "scopes", "public_sees", "weight", "max_wait_seconds"}
    limits = acme.model_dump(include=set(type(acme).model_fields) - others)
    assert not any(limits.values())
    assert acme.public_sees == "own"
    assert (acme.weight, acme.max_wait_seconds) == (1, 20)


def test_config_is_immutable():
    """The validated values stay in effect."""
    config = made(teams=[team()])
    with pytest.raises(ValueError, match="frozen"):
        config.server.port = 1
    with pytest.raises(ValueError, match="frozen"):
        config.teams = ()


def test_money_is_read_exactly(tmp_path):
    """A budget of 0.1 dollars is 100000 micro-dollars, without a float in between."""
    config = load(
        write(
            tmp_path / "c.toml",
            """
            teams = [{name = "acme", budget_usd_per_day = 0.1, budget_usd_per_month = 3}]
            [[prices.models]]
            model = "a/b"
            usd_per_input_token = 0.00000375
            usd_per_output_token = 0.00001
            """,
        ),
        ENVIRON,
    )
    assert config.teams[0].budget_microusd_per_day == 100_000
    assert config.teams[0].budget_microusd_per_month == 3_000_000
    assert config.prices.models[0].usd_per_input_token == Decimal("0.00000375")
    assert made(teams=[team()]).teams[0].budget_microusd_per_day is None


# Where it comes from ---------------------------------------------------------------------------------------------


def test_file_is_found_by_option_then_environment_then_working_directory(tmp_path, monkeypatch):
    """--config has precedence over GATEWAY_CONFIG, and that over ./config.toml."""
    monkeypatch.chdir(tmp_path)
    named = write(tmp_path / "named.toml", "server.port = 1001")
    by_environment = write(tmp_path / "env.toml", "server.port = 1002")
    write(tmp_path / "config.toml", "server.port = 1003")
    environ = ENVIRON | {"GATEWAY_CONFIG": str(by_environment)}
    assert load(named, environ).server.port == 1001
    assert load(None, environ).server.port == 1002
    assert load(None, ENVIRON).server.port == 1003
    assert load(None, ENVIRON | {"GATEWAY_CONFIG": ""}).server.port == 1003
    assert find(None, {}) == Path("config.toml")


def test_missing_file_is_reported_with_the_ways_to_name_one(tmp_path, monkeypatch):
    """A first start in an empty folder explains what to do."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=r"no config file: pass --config FILE, set GATEWAY_CONFIG, or create ./config.toml"
    ):
        load(None, ENVIRON)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": cannot be read: No such file or directory"),
        (b"[server]\nport = \n", ":2  column 8: invalid value (the value is missing)"),
        (b"[server]\r\nport = \r\n", ":2  column 8: invalid value (the value is missing)"),
        (b"[server]\nport = 1\nport = 2\n", ":3  column 9: cannot overwrite a value (this key is given twice)"),
        (b"[server\n", ":1  column 8: expected ']'"),
        (b"[server]\n# caf\xe9\n", ":2  not UTF-8"),
        (b'x = "unfinished', ":1  invalid TOML: unterminated string"),
        (b"x = " + b"[" * 100_000, ": invalid TOML"),
        (b"x = " + b"9" * 10_000, ": invalid TOML"),
        (b"#" * (4 * 2**20 + 1), ": larger than"),
    ],
)
def test_unreadable_file_is_reported_with_its_line(tmp_path, content, message):
    """An editor can open the right place."""
    path = tmp_path / "c.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path, ENVIRON)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{path}{message}")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("public_url = http://s3cret", 'column 14: invalid value (strings need quotes: public_url = "…")'),
        ("host = 10.0.0.1", 'strings need quotes: host = "…"'),
        ("port = 80 # ok\nhost: s3cret", "write name = value"),
        ("enabled = True", "write true or false"),
        ("enabled = no", "write true or false"),
        ("public_url = null", "TOML has no null: remove the line"),
        ("port =", "the value is missing"),
        ("port = # none", "the value is missing"),
        ('host = "s3cret', "unterminated string"),
        ('host = "s3cret\nport = 1', "a string is on one line"),
        ("[server]\n[server]", "the table [server] appears twice: join the two, or write [[server]] for a list"),
        ('[[teams]]\nname = "a"\n[teams]\nname = "s3cret"', "[[teams]] for a list"),
        ('path = "C:\\s3cret"', "write \\\\ for a backslash, or put the text in 'single quotes'"),
        ('host = "a" "s3cret"', "a string is on one line, and ends with the quote that it begins with"),
        ("server = { port = 1 }\n[server.x]", "appears twice"),
    ],
)
def test_syntax_error_says_how_to_fix_it_without_a_value(tmp_path, line, hint):
    """TOML's rules are not everybody's. The value may be a secret."""
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path / "c.toml", line), ENVIRON)
    (problem,) = caught.value.problems
    assert hint in str(problem)
    assert "s3cret" not in str(problem)


def test_problems_have_the_line_and_the_names_of_teams(tmp_path):
    """Nobody counts tables. A missing key has the line of its table, and a default none."""
    text = f"""[server]
port = "80"
[upstream]
webhooks = "off"
[[teams]]
name = "acme"
models = [
  "acme/*",
  "acme",
]
per_user = {{ burst = 0 }}
[[teams.keys]]
name = "web"
sha256 = "{DIGEST}"
scopes = ["read", "fly"]
[[teams.keys]]
sha256 = 5
[[teams]]
weight = 2
[[teams]]
name = "acme"
[[teams]]
name = "Not A Name"
unknown = 1
"""
    path = write(tmp_path / "c.toml", text)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    found = [str(problem).removeprefix(f"{path}:").partition(": ") for problem in caught.value.problems]
    assert [place for place, _, _ in found] == [
        "2  server.port",
        "3  upstream.token_env",
        '9  teams "acme" models[1]',
        '11  teams "acme" per_user.burst',
        '15  teams "acme" keys "web" scopes[1]',
        '17  teams "acme" keys "default" sha256',
        "18  teams[1].name",
        '21  teams "acme" name',
        '23  teams "Not A Name" name',
        '24  teams "Not A Name" unknown',
    ]
    assert 'same name as teams "acme" name (line 6)' in found[7][2]


def test_folder_is_not_a_config(tmp_path):
    """--config names a folder."""
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, ENVIRON)


# All at once -----------------------------------------------------------------------------------------------------


def test_every_problem_is_reported_at_once():
    """Twenty mistakes need one round, not twenty starts."""
    found = problems(
        {"EMPTY": " "},
        server={"port": "80", "public_url": "ftp://x", "prot": 1},
        ops={"host": "0.0.0.0", "port": 70000},
        upstream={"token": "r8_secret", "base_url": "api.replicate.com", "creates_per_minute": 0},
        store={"url": "mysql://x"},
        cache={"enabled": 1, "share": "everyone", "rules": [{"model": "x"}]},
        outputs={"persist": "all"},
        prices={"models": [{"model": "a/b"}, {"model": "a/c", "usd_per_run": 1, "hardware": "cpu"}]},
        logs={"level": "loud"},
        unheard={"of": 1},
        teams=[
            {"name": "Acme Inc", "budget_usd_per_day": -3, "scopes": ["read", "fly"]},
            team(models=["acme"], origins=["https://a.com/"], keys=[{}, {"name": "default", "key_env": "EMPTY"}]),
            team(per_user={"burst": 0.5}, budgt_usd_per_day=3),
        ],
    )
    assert list(found) == [
        "server.port",
        "server.public_url",
        "server.prot",
        "ops.port",
        "ops.token_env",
        "upstream.base_url",
        "upstream.creates_per_minute",
        "upstream.token",
        "store.url",
        "cache.enabled",
        "cache.share",
        "cache.rules[0].model",
        "cache.rules[0].mode",
        "outputs.persist",
        "prices.models[0]",
        "prices.models[1]",
        "logs.level",
        "teams[0].budget_usd_per_day",
        "teams[0].name",
        "teams[0].scopes[1]",
        "teams[1].models[0]",
        "teams[1].origins[0]",
        "teams[1].keys[0]",
        "teams[1].keys[1].key_env",
        "teams[1].keys[1].name",
        "teams[2].per_user.burst",
        "teams[2].budgt_usd_per_day",
        "teams[2].name",
        "unheard",
    ]


def test_problem_has_location_message_and_example():
    """A line is enough to fix the config."""
    with pytest.raises(ConfigError) as caught:
        made(teams=[team(), team(name="b"), team(name="c", budget_usd_per_day=-3)])
    assert str(caught.value) == "teams[2].budget_usd_per_day: expected a number above 0, got -3 (for example: 200)"


def test_invalid_value_is_reported_once():
    """Checks that depend on an invalid value are skipped."""
    assert list(problems(ops={"host": 5})) == ["ops.host"]
    assert list(problems(teams=[team(keys=[{"sha256": 5}])])) == ["teams[0].keys[0].sha256"]
    assert list(problems(teams=[team(keys=[{"keyenv": "X"}])])) == ["teams[0].keys[0].keyenv"]
    assert list(problems(teams=[team(keys=[{"sha256": DIGEST, "origins": ["x"]}])])) == ["teams[0].keys[0].origins[0]"]
    assert list(problems(teams=[team(scopes=["fly"], keys=[{"sha256": DIGEST, "scopes": ["train"]}])])) == [
        "teams[0].scopes[0]"
    ]
    assert list(problems(outputs={"url": 5, "persist": "all"})) == ["outputs.url"]
    assert list(problems(server={"port": True}, ops={"port": 8080})) == ["server.port"]
    assert list(problems(ops={"host": "0.0.0.0", "token_file": 5})) == ["ops.token_file"]


def test_invalid_items_keep_the_indexes_of_their_neighbors():
    """The index in a path is the one in the file."""
    found = problems(teams=[3, team(), {}, team()])
    assert list(found) == ["teams[0]", "teams[2].name", "teams[3].name"]
    assert found["teams[0]"] == "expected a table, got 3"
    assert "teams[1].name" in found["teams[3].name"]


@pytest.mark.parametrize(
    ("sections", "path", "message"),
    [
        ({"server": {"prot": 1}}, "server.prot", "unknown; did you mean port?"),
        ({"sever": {}}, "sever", "unknown; did you mean server?"),
        ({"metrics": {"zzz": 1}}, "metrics.zzz", "unknown; the keys of this section are top_targets"),
        (
            {"upstream": {"token": TOKEN}},
            "upstream.token",
            "unknown; secrets do not belong in this file: use token_env or token_file",
        ),
        (
            {"teams": [{"name": "acme", "keys": [{"key": "rgw_x"}]}]},
            "teams[0].keys[0].key",
            "unknown; secrets do not belong in this file: use key_env or sha256",
        ),
        ({"server": 5}, "server", "expected a table, got 5"),
        ({"server": []}, "server", "expected a table, got a list"),
        ({"teams": {"name": "acme"}}, "teams", "expected a list of tables, each written as [[teams]], got a table"),
        ({"cache": {"rules": {}}}, "cache.rules", "expected a list of tables, each written as [[cache.rules]]"),
        ({"server": {"trusted_proxies": "10.0.0.0/8"}}, "server.trusted_proxies", "expected a list, got"),
        ({"cache": {"random_seeds": ["x"]}}, "cache.random_seeds[0]", "expected a whole number"),
    ],
)
def test_unknown_keys_and_wrong_types_are_refused(sections, path, message):
    """A typo never silently disables a limit."""
    found = problems(**sections)
    assert list(found) == [path]
    assert message in found[path]


# Values ----------------------------------------------------------------------------------------------------------

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


# Across sections -------------------------------------------------------------------------------------------------


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
        "tracing.enabled": "needs the extra otel: pip install '.[otel]' in a checkout"
    }


def test_drain_seconds_cannot_exceed_the_grace_period():
    """The drain time is part of the grace period."""
    made(server={"drain_seconds": 5, "shutdown_grace_seconds": 5})
    found = problems(server={"drain_seconds": 11})
    assert found == {"server.drain_seconds": "must not exceed shutdown_grace_seconds (10)"}


@pytest.mark.parametrize("value", [None, "", "  "])
def test_named_variable_must_not_be_empty(value):
    """An empty token would be sent as no token."""
    environ = {} if value is None else {"OPS": value, "KEY": value, "REPLICATE_API_TOKEN": value}
    with pytest.raises(ConfigError) as caught:
        from_mapping(
            {
                "ops": {"token_env": "OPS"},
                "teams": [team(keys=[{"key_env": "KEY"}])],
            },
            environ,
        )
    state = "is not set" if value is None else "is empty"
    assert [str(problem) for problem in caught.value.problems] == [
        f"ops.token_env: the environment variable OPS {state}",
        f"upstream.token_env: the environment variable REPLICATE_API_TOKEN {state}",
        f"teams[0].keys[0].key_env: the environment variable KEY {state}",
    ]


def test_commands_other_than_serve_need_no_secret():
    """`gateway keys list` works in a shell that does not have the account's token."""
    data = {"teams": [team(keys=[{"key_env": "KEY"}])], "ops": {"token_env": "OPS"}}
    config = from_mapping(data, {}, serving=False)
    assert config.teams[0].keys[0].digest == ""
    with pytest.raises(ConfigError, match=r"ops.token_env"):
        from_mapping(data, {})


def test_token_may_be_in_a_file(tmp_path):
    """Secrets of containers are files."""
    path = write(tmp_path / "token", f"{TOKEN}\n")
    config = from_mapping({"upstream": {"token_file": str(path)}}, {})
    assert config.upstream.token.get_secret_value() == TOKEN


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "the file cannot be read: No such file or directory"),
        ("", "the file is empty"),
        (" \n", "the file is empty"),
        ("two words", "the file does not contain a key or token"),
        ("r8_x\nr8_y", "the file does not contain a key or token"),
        ("é", "the file does not contain a key or token"),
        ("x" * 70_000, "the file is too large"),
    ],
)
def test_token_file_must_contain_a_token(tmp_path, content, message):
    """The message says what is wrong with the file and does not show its content."""
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    found = problems(upstream={"token_file": str(path)})
    assert message in found["upstream.token_file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_token_file_must_be_readable(tmp_path):
    """Wrong permissions are reported as such."""
    path = write(tmp_path / "token", TOKEN)
    path.chmod(0)
    assert "Permission denied" in problems(upstream={"token_file": str(path)})["upstream.token_file"]


def test_token_has_one_source(tmp_path):
    """Two tokens are ambiguous."""
    path = write(tmp_path / "token", TOKEN)
    found = problems(upstream={"token_file": str(path), "token_env": "REPLICATE_API_TOKEN"})
    assert found == {"upstream.token_file": "token_env is given too; remove one of them"}


def test_key_has_one_source():
    """Neither source, or both, is invalid."""
    both = {"name": "b", "key_env": "KEY", "sha256": DIGEST}
    found = problems({"KEY": "k" * 30}, teams=[team(keys=[{"name": "a"}, both])])
    assert found["teams[0].keys[0]"].startswith("needs key_env or sha256")
    assert found["teams[0].keys[1].sha256"] == "key_env is given too; remove one of them"
    assert len(found) == 2


def test_key_from_the_environment_is_known_by_its_digest():
    """A trailing newline is ignored, as with variables that were read from files."""
    config = made({"KEY": "my-key-my-key-my-key-my-key\n"}, teams=[team(keys=[{"key_env": "KEY"}])])
    expected = hashlib.sha256(b"my-key-my-key-my-key-my-key").hexdigest()
    assert config.teams[0].keys[0].digest == expected


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


def test_outputs_persist_requires_a_url():
    """The problem is reported at start, not when outputs are lost."""
    assert "requires outputs.url" in problems(outputs={"persist": "all"})["outputs.persist"]
    made(outputs={"persist": "off"})


def test_base_url_cannot_be_the_public_url():
    """The gateway would call itself."""
    found = problems(server={"public_url": "https://g.example.com"}, upstream={"base_url": "https://g.example.com/v1/"})
    assert list(found) == ["upstream.base_url"]


def test_password_of_postgresql_comes_from_the_environment_or_a_file(tmp_path):
    path = write(tmp_path / "password", f"{SECRET}\n")
    url = "postgresql://gateway@db/gateway"
    by_env = made({"PW": SECRET, "REPLICATE_API_TOKEN": TOKEN}, store={"url": url, "password_env": "PW"})
    by_file = made(store={"url": url, "password_file": str(path)})
    for config in (by_env, by_file):
        assert config.store.revealed_password == SECRET
        assert SECRET in config.secret_values()
        assert SECRET not in f"{config!r} {config.store!r} {config.model_dump()}"
    assert made(store={"url": url}).store.password is None
    both = problems({"PW": SECRET}, store={"url": url, "password_env": "PW", "password_file": str(path)})
    assert both == {"store.password_file": "password_env is given too; remove one of them"}
    missing = problems(store={"url": url, "password_env": "PW"})
    assert missing == {"store.password_env": "the environment variable PW is not set"}


def test_postgresql_requires_its_extra(monkeypatch):
    """It is reported with the other problems, not as a traceback at start."""
    monkeypatch.setattr("gateway.config.checks.find_spec", lambda name: None)
    assert problems(store={"url": "postgresql://gateway@db/gateway"}) == {
        "store.url": "needs the extra postgres: pip install '.[postgres]' in a checkout"
    }


# Secrets stay inside ---------------------------------------------------------------------------------------------

SECRET = "hunter2hunter2hunter2hunter2"


def test_no_dump_and_no_repr_shows_a_secret(tmp_path):
    """A config can be printed, logged and passed on."""
    environ = {"OPS": SECRET + "1", "KEY": SECRET + "2", "REPLICATE_API_TOKEN": SECRET}
    config = made(
        environ,
        ops={"token_env": "OPS"},
        teams=[team(keys=[{"key_env": "KEY"}])],
    )
    assert config.upstream.token.get_secret_value() == SECRET
    shown = [repr(config), str(config), str(config.model_dump()), config.model_dump_json()]
    shown += [repr(config.upstream), repr(config.ops), repr(config.teams[0].keys[0]), repr(config.upstream.token)]
    assert not any(SECRET in text for text in shown)
    assert sorted(config.secret_values()) == [SECRET, SECRET + "1", SECRET + "2"]


@pytest.mark.parametrize(
    "sections",
    [
        {"upstream": {"token": SECRET}},
        {"upstream": {"tokens": {"a": SECRET}}},
        {"upstream": {"token_env": [SECRET]}},
        {"upstream": {"token_env": SECRET}},
        {"upstream": {"token_env": SECRET + "-"}},
        {"upstream": {"token_file": SECRET}},
        {"upstream": {"base_url": f"https://{SECRET}@api.replicate.com?x"}},
        {"upstream": {"base_url": f"https://user:{SECRET}@api.replicate.com"}},
        {"ops": {"token_env": SECRET}},
        {"ops": {"token": SECRET}},
        {"store": {"url": f"redis://:{SECRET}@h"}},
        {"store": {"url": f"redis://:a/{SECRET}@h"}},
        {"store": {"url": f"mysql://u:{SECRET}@h"}},
        {"store": {"url": f"postgresql://u:{SECRET}@h/x"}},
        {"store": {"url": f"postgresql://u@h/x?password={SECRET}"}},
        {"outputs": {"url": f"s3://{SECRET}:{SECRET}@bucket"}},
        {"teams": [{"name": "acme", "keys": [{"key": SECRET}]}]},
        {"teams": [{"name": "acme", "keys": [{"sha256": SECRET}]}]},
        {"teams": [{"name": "acme", "keys": [{"key_env": SECRET}]}]},
        {"teams": [{"name": "acme", "keys": [SECRET]}]},
        {"upstream": SECRET},
        {"teams": [{"name": "acme", "keys": {"a": SECRET}}]},
    ],
)
def test_errors_do_not_show_misplaced_secrets(sections):
    """The output of a failed start can be pasted into a ticket."""
    with pytest.raises(ConfigError) as caught:
        made(**sections)
    error = caught.value
    shown = str(error) + repr(error) + repr(error.problems)
    assert SECRET not in shown
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("name", ["rgw_abcdefghijkl_" + "a" * 32, TOKEN, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"])
def test_text_that_looks_like_a_secret_is_masked(name):
    """A key pasted as a name, host, scope or key of a table is not repeated."""
    found = problems(
        server={"host": name + "/"},
        teams=[{"name": name + "!", "scopes": [name], "models": [name]}],
        **{name: 1},
    )
    assert len(found) == 5
    assert name not in str(found)


# What others build on --------------------------------------------------------------------------------------------


def test_teams_are_found_by_name():
    """Authentication and the command line look up teams by name."""
    config = made(teams=[team(keys=[{"name": "web", "sha256": DIGEST}])])
    acme = config.team("acme")
    assert acme is not None
    assert config.team("other") is None
    assert acme.key("web") is acme.keys[0]
    assert acme.key("other") is None


def test_config_keys_become_records():
    """Authentication handles both kinds alike; the id is stable across restarts and rotation."""
    config = made(
        teams=[
            team(
                origins=["https://a.com"],
                keys=[
                    {"name": "web", "sha256": DIGEST, "scopes": ["read"], "models": ["a/*"], "expires": "2030-01-31"}
                ],
            )
        ]
    )
    (key,) = config.teams[0].issued_keys()
    assert (key.id, key.team, key.name, key.sha256) == ("acme/web", "acme", "web", DIGEST)
    assert (key.scopes, key.models, key.origins) == (("read",), ("a/*",), None)
    assert key.expires_at == 1_896_048_000.0


def test_cors_origins_are_those_of_the_team_or_else_of_its_keys():
    """A team without origins has those of its keys."""
    key = {"sha256": DIGEST, "origins": ["https://a.com"]}
    assert made(teams=[team(keys=[key])]).teams[0].browser_origins == ("https://a.com",)
    both = made(teams=[team(origins=["https://a.com", "https://b.com"], keys=[key])])
    assert both.teams[0].browser_origins == ("https://a.com", "https://b.com")


def test_config_survives_pickling():
    """Worker processes receive it."""
    config = made(teams=[team(keys=[{"sha256": DIGEST}])])
    again = pickle.loads(pickle.dumps(config))
    assert again == config
    assert again.upstream.token.get_secret_value() == TOKEN


# Any input -------------------------------------------------------------------------------------------------------

MODELS = (Cache, CacheRule, Config, TeamLimits, ModelPrice, Prices, Server, Team, TeamKey, Upstream)
NAMES = sorted({name for model in MODELS for name in model.model_fields})
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.decimals()
DATA = st.dictionaries(
    st.sampled_from(sorted(Config.model_fields)) | st.text(max_size=5),
    st.recursive(
        LEAVES,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=6)
        ),
        max_leaves=20,
    ),
    max_size=6,
)


@given(DATA)
def test_any_data_is_valid_or_refused_with_problems(data):
    """No data causes a traceback."""
    reported: list[Problem] | None = None
    try:
        from_mapping(data, ENVIRON)
    except ConfigError as error:
        reported = error.problems
    assert reported is None or reported
    assert all(problem.message and str(problem).isprintable() for problem in reported or ())
