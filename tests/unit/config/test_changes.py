"""Differences of two configs: reported without secrets, for every setting."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config, from_mapping
from gateway.config.changes import LIVE, RESTART, Change, diff, effective
from tests.support.config_values import ENVIRON, VALUES, changed, config_of, keys_of_the_config

HEX = "a" * 64
SECRETS = tuple(ENVIRON.values())


def with_teams(*teams: dict[str, Any]) -> Config:
    return config_of(teams=list(teams))


def test_every_setting_is_either_live_or_needs_a_restart():
    """A setting in neither list would change in the file and have no effect."""
    live = {f"{section}.{name}" for section, names in LIVE.items() for name in names}
    restart = {f"{section}.{name}" for section, names in RESTART.items() for name in names}
    assert not live & restart
    assert live | restart == set(keys_of_the_config())
    assert set(VALUES) == live | restart


@pytest.mark.parametrize("key", tuple(keys_of_the_config()))
def test_each_change_is_reported_and_applied_only_if_live(key, tmp_path):
    """The log matches what the reload does."""
    section, name = key.split(".")
    old, new = changed(key, tmp_path)
    needs_restart = name in RESTART.get(section, ())
    changes = diff(old, new)
    assert {change.path.partition("[")[0] for change in changes} >= {key}
    assert {change.needs_restart for change in changes} == {needs_restart}
    merged, problems = effective(old, new)
    assert not problems
    assert (merged == old) is needs_restart
    assert (merged == new) is not needs_restart
    assert_no_secret(changes)


def assert_no_secret(changes: list[Change]) -> None:
    reported = " ".join(f"{change.path} {change.old} {change.new}" for change in changes)
    for secret in (*SECRETS, HEX, "secret"):
        assert secret not in reported, reported


def test_setting_that_needs_a_restart_is_reported_at_every_reload():
    """File and process differ until the restart."""
    old, new = config_of(server={"port": 1}), config_of(server={"port": 2, "max_body_bytes": 10})
    merged, _ = effective(old, new)
    assert [change.path for change in diff(merged, new)] == ["server.port"]


def test_teams_are_compared_by_name():
    """The order of teams does not matter; a changed limit is reported with the name of its team."""
    red, blue = {"name": "red"}, {"name": "blue", "budget_usd_per_day": Decimal(2)}
    old = with_teams(red, blue)
    assert diff(old, with_teams(blue, red)) == []
    other = {**blue, "budget_usd_per_day": Decimal(5), "per_user": {"requests_per_minute": 3}}
    assert diff(old, with_teams(other, {"name": "green"})) == [
        Change("teams[red]", "present", "removed"),
        Change("teams[blue].budget_usd_per_day", "2", "5"),
        Change("teams[blue].per_user", "not set", "{requests_per_minute = 3}"),
        Change("teams[green]", "not set", "added"),
    ]


def test_keys_are_compared_by_name_and_not_shown():
    """A changed key is reported without its digest or the name of its variable."""
    one = {"name": "red", "keys": [{"name": "a", "key_env": "KEY_ONE"}, {"name": "b", "sha256": HEX}]}
    two = {"name": "red", "keys": [{"name": "b", "sha256": "b" * 64}, {"name": "a", "key_env": "KEY_TWO"}]}
    changes = diff(with_teams(one), with_teams(two))
    assert [change.path for change in changes] == ["teams[red].keys[a].key_env", "teams[red].keys[b].sha256"]
    assert {(change.old, change.new) for change in changes} == {("(not shown)", "(not shown)")}
    assert_no_secret(changes)


def test_changed_secret_under_the_same_variable_is_a_change():
    """A rotation changes the secret and not the config."""
    data = {"ops": {"token_env": "OPS"}, "teams": [{"name": "red", "keys": [{"key_env": "KEY_ONE"}]}]}
    turned = {"REPLICATE_API_TOKEN": SECRETS[1], "OPS": SECRETS[3], "KEY_ONE": SECRETS[5]}
    changes = diff(from_mapping(data, ENVIRON), from_mapping(data, turned))
    assert [change.path for change in changes] == ["ops.token", "upstream.token", "teams[red].keys[default]"]
    assert not any(change.needs_restart for change in changes)
    assert_no_secret(changes)


def test_budget_webhook_urls_are_not_shown():
    """The URL of a chat webhook is a secret."""
    hooks = [with_teams({"name": "red", "budget_webhook": f"https://hooks.example.com/{n}"}) for n in ("s3cr3t", "x")]
    assert diff(*hooks) == [Change("teams[red].budget_webhook", "(not shown)", "(not shown)")]


def test_new_token_waits_for_the_restart_that_changes_the_base_url():
    """It must not be sent to the old host."""
    old = config_of()
    new = config_of(upstream={"base_url": "http://127.0.0.1:9090/v1", "token_env": "OTHER_TOKEN", "webhooks": "off"})
    merged, _ = effective(old, new)
    assert merged.upstream.token == old.upstream.token
    assert merged.upstream.webhooks == "off"
    waiting = {change.path for change in diff(old, new) if change.needs_restart}
    assert waiting == {"upstream.base_url", "upstream.token_env", "upstream.token"}


def test_public_ops_listener_keeps_its_token():
    """Both configs are valid; their combination would require no token."""
    old = config_of(ops={"host": "0.0.0.0", "token_env": "OPS"})
    merged, problems = effective(old, config_of(ops={"host": "127.0.0.1"}))
    assert [problem.path for problem in problems] == ["ops.token_env"]
    assert merged.ops.host == "0.0.0.0"


names = st.sampled_from(("red", "blue", "green", "grey"))
rates = st.none() | st.integers(1, 3)
keys = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(("a", "b")), "sha256": st.sampled_from((HEX, "b" * 64, "c" * 64))},
        optional={"requests_per_minute": st.integers(1, 3)},
    ),
    max_size=2,
    unique_by=lambda key: key["name"],
)
teams = st.lists(
    st.fixed_dictionaries({"name": names, "weight": st.integers(1, 2)}, optional={"burst": st.integers(1, 2)}),
    max_size=4,
    unique_by=lambda team: str(team["name"]),
)


@st.composite
def configs(draw: st.DrawFn) -> Config:
    drawn = draw(teams)
    if drawn:
        digests: set[str] = set()
        for team in drawn:
            team["keys"] = [
                key for key in draw(keys) if key["sha256"] not in digests and not digests.add(key["sha256"])
            ]
    ops = draw(st.sampled_from(({}, {"token_env": "OPS"}, {"token_env": "OPS_TWO"}, {"port": 1})))
    upstream = draw(st.sampled_from(({}, {"token_env": "OTHER_TOKEN"}, {"base_url": "http://127.0.0.1:1/v1"})))
    return config_of(teams=drawn, ops=ops, upstream=upstream)


@given(configs())
def test_equal_configs_have_no_changes(one):
    """A reload without changes reports none."""
    assert diff(one, one) == []
    assert effective(one, one) == (one, [])


@given(configs(), configs())
def test_every_difference_is_reported_once_without_secrets(one, two):
    """No change is missed or reported twice."""
    changes = diff(one, two)
    same_teams = sorted(one.teams, key=lambda team: team.name) == sorted(two.teams, key=lambda team: team.name)
    others = one.model_copy(update={"teams": ()}) == two.model_copy(update={"teams": ()})
    paths = [change.path for change in changes]
    assert len(paths) == len(set(paths))
    if not changes:
        assert others
    if same_teams and others:
        assert not changes
    assert_no_secret(changes)
    merged, _ = effective(one, two)
    assert [change.path for change in diff(merged, two)] == [change.path for change in changes if change.needs_restart]
