"""Secrets of the config: where they come from, and that nothing shows them."""

import hashlib
import os
import pickle

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
    from_mapping,
)
from tests.support.config_files import DIGEST, ENVIRON, TOKEN, made, problems, team, write


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
