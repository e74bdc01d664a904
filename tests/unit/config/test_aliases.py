"""`[[aliases]]`: what is refused, what is warned of, and what a reload reports."""

from typing import Any

import pytest

from gateway.assembly.settings import named_targets, teams_of
from gateway.config import ConfigError, warnings
from gateway.config.changes import diff
from tests.support.config_values import config_of

SCHNELL = "black-forest-labs/flux-schnell"
TEAMS = [{"name": "red"}, {"name": "blue"}]


def alias(name: str, target: str = SCHNELL, *teams: str) -> dict[str, Any]:
    return {"name": name, "target": target} | ({"teams": list(teams)} if teams else {})


def problems_of(*aliases: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the problems of a config with these aliases."""
    with pytest.raises(ConfigError) as raised:
        config_of(aliases=list(aliases), teams=TEAMS)
    return [(problem.path, problem.message) for problem in raised.value.problems]


def test_aliases_of_teams_and_of_all():
    """One name can stand for something else in a team."""
    config = config_of(
        aliases=[alias("acme/image"), alias("acme/image", "acme/painter", "red"), alias("acme/llm", "meta/llama")],
        teams=TEAMS,
    )
    teams = teams_of(config)
    found = [teams[team].aliases[name] for team in ("red", "blue") for name in ("acme/image", "acme/llm")]
    assert [target.name for target in found] == ["acme/painter", "meta/llama", SCHNELL, "meta/llama"]
    assert named_targets(config) == [SCHNELL, "acme/painter", "meta/llama"]


@pytest.mark.parametrize(
    ("aliases", "path", "message"),
    [
        ([alias("acme/a"), alias("acme/a")], "aliases[1].name", "same name as aliases[0].name"),
        ([alias("acme/a", SCHNELL, "red", "blue"), alias("acme/a", SCHNELL, "blue")], "aliases[1].name", "same team"),
        ([alias("acme/a", "acme/b"), alias("acme/b")], "aliases[0].target", "is an alias itself (aliases[1].name)"),
        ([alias("acme/b", SCHNELL, "red"), alias("acme/a", "acme/b")], "aliases[1].target", "is an alias itself"),
        ([alias("acme/a", "acme/a")], "aliases[0].target", "is the alias itself"),
        ([alias("acme/a", "deployments/acme/a")], "aliases[0].target", "is the alias itself"),
        ([alias("acme/a", SCHNELL, "green")], "aliases[0].teams", "green: no team of that name"),
        ([alias("acme")], "aliases[0].name", "expected owner/name, got"),
        ([alias("acme/a", "0" * 64)], "aliases[0].target", "expected owner/name, owner/name:version"),
        ([{"name": "acme/a"}], "aliases[0].target", "is missing"),
        ([{"target": SCHNELL}], "aliases[0].name", "is missing"),
        ([alias("acme/a") | {"team": "red"}], "aliases[0].team", "did you mean teams?"),
    ],
)
def test_contradiction_is_one_problem(aliases: list[dict[str, Any]], path: str, message: str):
    """The config names what to change."""
    ((found, text),) = problems_of(*aliases)
    assert found == path
    assert message in text


def test_cycle_is_refused_at_both_ends():
    """Neither of the two would lead anywhere."""
    paths = [path for path, _ in problems_of(alias("acme/a", "acme/b"), alias("acme/b", "acme/a"))]
    assert paths == ["aliases[0].target", "aliases[1].target"]


def test_alias_of_another_team_is_no_chain():
    """No request of either team meets both."""
    config = config_of(aliases=[alias("acme/a", "acme/b", "red"), alias("acme/b", SCHNELL, "blue")], teams=TEAMS)
    assert len(config.aliases) == 2


def warned(aliases: list[dict[str, Any]], **sections: Any) -> list[tuple[str, str]]:
    config = config_of(aliases=aliases, **{"teams": TEAMS, **sections})
    return [(each.path, each.message) for each in warnings(config, 0.0)]


@pytest.mark.parametrize(
    ("aliases", "sections", "path", "message"),
    [
        ([alias(SCHNELL, "acme/painter")], {}, "aliases[0].name", "hides the model of that name"),
        (
            [alias("acme/own")],
            {"prices": {"models": [{"model": "acme/own", "usd_per_run": 1}]}},
            "aliases[0].name",
            "hides the model of that name",
        ),
        (
            [alias("acme/a", SCHNELL, "red")],
            {"teams": [{"name": "red", "models": ["acme/*"]}]},
            "aliases[0].target",
            "is not among the models of the team red",
        ),
    ],
)
def test_probable_mistake_is_warned_of(
    aliases: list[dict[str, Any]], sections: dict[str, Any], path: str, message: str
):
    """The config is valid, but hardly what was meant."""
    ((found, text),) = warned(aliases, **sections)
    assert found == path
    assert message in text


def test_alias_of_all_teams_may_be_out_of_reach_for_some():
    """Their lists keep them from its target, which may be the purpose."""
    assert not warned([alias("acme/a")], teams=[{"name": "red", "models": ["meta/*"]}, {"name": "blue"}])


def test_alias_in_a_list_of_models_is_its_target():
    """Of a team, of its keys, and of an issuer's users. Metrics name the target, too."""
    config = config_of(
        aliases=[alias("acme/a", "deployments/acme/b"), alias("acme/a", SCHNELL, "red")],
        teams=[
            {"name": "red", "models": ["acme/a", "meta/*"], "keys": [{"sha256": "0" * 64, "models": [SCHNELL]}]},
            {"name": "blue", "models": ["acme/a"], "origins": ["https://a.example"]},
        ],
        issuers=[{"issuer": "https://id.example", "audience": ["a"], "team": "blue", "models": ["acme/b"]}],
    )
    assert [team.models for team in teams_of(config).values()] == [(SCHNELL, "meta/*"), ("acme/b",)]
    assert "acme/a" not in named_targets(config)
    assert [each.path for each in warnings(config, 0.0)] == ["issuers[0].per_user"]


def test_alias_in_a_list_of_a_key_stays_within_its_teams():
    """A pattern of the team is of real models: one that the alias happens to match is not its target."""
    with pytest.raises(ConfigError) as raised:
        config_of(
            aliases=[alias("acme/a")],
            teams=[{"name": "red", "models": ["acme/*"], "keys": [{"sha256": "0" * 64, "models": ["acme/a"]}]}],
        )
    ((path, message),) = [(each.path, each.message) for each in raised.value.problems]
    assert path == "teams[0].keys[0].models"
    assert f"acme/a (an alias of {SCHNELL}): outside" in message


def test_reload_reports_what_an_alias_stands_for():
    """By name and team, so their order does not matter."""
    old = config_of(aliases=[alias("acme/a"), alias("acme/b", "x/y", "red", "blue"), alias("acme/c")], teams=TEAMS)
    new = config_of(aliases=[alias("acme/b", "x/z", "blue"), alias("acme/a"), alias("acme/d")], teams=TEAMS)
    quoted = f'"{SCHNELL}"'
    assert [(change.path, change.old, change.new, change.needs_restart) for change in diff(old, new)] == [
        ("aliases[acme/b, red]", '"x/y"', "not set", False),
        ("aliases[acme/b, blue]", '"x/y"', '"x/z"', False),
        ("aliases[acme/c]", quoted, "not set", False),
        ("aliases[acme/d]", "not set", quoted, False),
    ]
