"""Loading a config: values, and a report of every problem."""

from decimal import Decimal
from pathlib import Path

import pytest

from gateway.config import (
    ConfigError,
    find,
    load,
)
from tests.support.config_files import DIGEST, ENVIRON, TOKEN, made, problems, team, write


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


ALERTS = {"budget_thresholds", "budget_webhook_format"}


def test_team_with_only_a_name_has_no_limits():
    """It has the default scopes and no limits."""
    (acme,) = made(teams=[team()]).teams
    assert acme.scopes == ("read", "predict", "files")
    assert acme.models is None
    others = {"name", "scopes", "public_sees", "weight", "max_wait_seconds", "max_issued_keys", *ALERTS}
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
