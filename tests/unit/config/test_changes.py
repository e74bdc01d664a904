"""What a reload would change: told without a secret, and no key of the config is left out."""

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


def test_every_key_is_live_or_needs_a_restart():
    """A key in neither list would change in the file and nowhere else, without a word."""
    live = {f"{section}.{name}" for section, names in LIVE.items() for name in names}
    restart = {f"{section}.{name}" for section, names in RESTART.items() for name in names}
    assert not live & restart
    assert live | restart == set(keys_of_the_config())
    assert set(VALUES) == live | restart


@pytest.mark.parametrize("key", tuple(keys_of_the_config()))
def test_each_change_is_reported_and_applied_where_it_can_be(key, tmp_path):
    """What the log says of a key is what happens to it."""
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
    assert_tells_no_secret(changes)


def assert_tells_no_secret(changes: list[Change]) -> None:
    told = " ".join(f"{change.path} {change.old} {change.new}" for change in changes)
    for secret in (*SECRETS, HEX, "secret"):
        assert secret not in told, told


def test_pending_restart_is_reported_on_every_reload():
    """The file and the process differ until then."""
    old, new = config_of(server={"port": 1}), config_of(server={"port": 2, "max_body_bytes": 10})
    merged, _ = effective(old, new)
    assert [change.path for change in diff(merged, new)] == ["server.port"]


def test_teams_are_compared_by_name():
    """Moving a team in the file changes nothing; a changed limit is named by its team."""
    red, blue = {"name": "red"}, {"name": "blue", "budget_usd_per_day": Decimal(2)}
    old = with_teams(red, blue)
    assert diff(old, with_teams(blue, red)) == []
    other = {**blue, "budget_usd_per_day": Decimal(5), "per_user": {"requests_per_minute": 3}}
    assert diff(old, with_teams(other, {"name": "green"})) == [
        Change("teams[red]", "removed", "not set"),
        Change("teams[blue].budget_usd_per_day", "2", "5"),
        Change("teams[blue].per_user", "not set", "{requests_per_minute = 3}"),
        Change("teams[green]", "not set", "added"),
    ]


def test_keys_are_compared_by_name_and_not_shown():
    """The report says that a key changed, not which key it is or what its variable is called."""
    one = {"name": "red", "keys": [{"name": "a", "key_env": "KEY_ONE"}, {"name": "b", "sha256": HEX}]}
    two = {"name": "red", "keys": [{"name": "b", "sha256": "b" * 64}, {"name": "a", "key_env": "KEY_TWO"}]}
    changes = diff(with_teams(one), with_teams(two))
    assert [change.path for change in changes] == ["teams[red].keys[a].key_env", "teams[red].keys[b].sha256"]
    assert {(change.old, change.new) for change in changes} == {("(not shown)", "(not shown)")}
    assert_tells_no_secret(changes)


def test_rotated_secret_under_the_same_name_is_a_change():
    """Rotation rewrites a file and leaves the config as it is."""
    data = {"ops": {"token_env": "OPS"}, "teams": [{"name": "red", "keys": [{"key_env": "KEY_ONE"}]}]}
    turned = {"REPLICATE_API_TOKEN": SECRETS[1], "OPS": SECRETS[3], "KEY_ONE": SECRETS[7]}
    changes = diff(from_mapping(data, ENVIRON), from_mapping(data, turned))
    assert [change.path for change in changes] == ["ops.token", "upstream.token", "teams[red].keys[default]"]
    assert not any(change.needs_restart for change in changes)
    assert_tells_no_secret(changes)


def test_webhook_urls_are_not_shown():
    """Someone who knows a chat's hook can write to it."""
    hooks = [with_teams({"name": "red", "budget_webhook": f"https://hooks.example.com/{n}"}) for n in ("s3cr3t", "x")]
    assert diff(*hooks) == [Change("teams[red].budget_webhook", "(not shown)", "(not shown)")]


def test_token_waits_with_its_upstream():
    """It would be sent to the old upstream otherwise."""
    old = config_of()
    new = config_of(upstream={"base_url": "http://127.0.0.1:9090/v1", "token_env": "OTHER_TOKEN", "webhooks": "off"})
    merged, _ = effective(old, new)
    assert merged.upstream.token == old.upstream.token
    assert merged.upstream.webhooks == "off"
    waiting = {change.path for change in diff(old, new) if change.needs_restart}
    assert waiting == {"upstream.base_url", "upstream.token_env", "upstream.token"}


def test_exposed_listener_keeps_its_token():
    """Both configs are valid; the process with half of each would let anyone in."""
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
    """A reload of the same config reports nothing."""
    assert diff(one, one) == []
    assert effective(one, one) == (one, [])


@given(configs(), configs())
def test_reported_changes_are_exactly_the_differences(one, two):
    """Every difference is reported once, and no secret is in the report."""
    changes = diff(one, two)
    same_teams = sorted(one.teams, key=lambda team: team.name) == sorted(two.teams, key=lambda team: team.name)
    others = one.model_copy(update={"teams": ()}) == two.model_copy(update={"teams": ()})
    paths = [change.path for change in changes]
    assert len(paths) == len(set(paths))
    if not changes:
        assert others
    if same_teams and others:
        assert not changes
    assert_tells_no_secret(changes)
    merged, _ = effective(one, two)
    assert [change.path for change in diff(merged, two)] == [change.path for change in changes if change.needs_restart]
