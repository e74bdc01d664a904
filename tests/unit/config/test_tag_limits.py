"""Limits of cost tags in the config: which tags there are, and where a problem is."""

from typing import Any

import pytest

from gateway.assembly.settings import teams_of
from gateway.config import ConfigError, load, load_with_places, warnings
from gateway.config.changes import Change, diff
from gateway.config.show import lines
from gateway.domain.limits import Limits
from tests.support.config_files import ENVIRON, made, problems, team, write

TAGS = {"keys": ["project"]}
TEXT = """[tags]
keys = ["project"]
[[teams]]
name = "acme"
budget_usd_per_month = 50
[teams.per_tag]
project = { budget_usd_per_month = 10 }
"project:a/b.c" = { budget_usd_per_month = 60, burst = 2 }
"""


def test_each_value_or_one_value_has_limits():
    """The names are as in the config; request rates are counted before the tags are read."""
    (acme,) = teams_of(
        made(tags=TAGS, teams=[team(per_tag={"project": {"budget_usd_per_day": 2}, "project:a": {}})])
    ).values()
    assert acme.per_tag == {"project": Limits(microusd_per_day=2_000_000), "project:a": Limits()}
    found = problems(tags=TAGS, teams=[team(per_tag={"project": {"requests_per_minute": 5}})])
    assert found == {"teams[0].per_tag.project.requests_per_minute": "unknown; did you mean predictions_per_minute?"}


@pytest.mark.parametrize(
    ("keys", "name", "words"),
    [
        ([], "project", "there is no tag project: [tags] keys is empty"),
        (["feature"], "project:a", "there is no tag project: the keys are feature"),
        (["project"], "Project", "expected a tag, or a tag and its value"),
        (["project"], "project:a b", "expected a tag, or a tag and its value"),
        (["project"], "project:(other)", "expected a tag, or a tag and its value"),
    ],
)
def test_unknown_or_impossible_tag_is_refused_once(keys: list[str], name: str, words: str):
    """A typing error would leave a tag without its budget."""
    ((path, message),) = problems(tags={"keys": keys}, teams=[team(per_tag={name: {"burst": 1}})]).items()
    assert path.startswith("teams[0].per_tag.")
    assert words in message


def test_problems_and_warnings_have_the_line_of_their_value(tmp_path: Any):
    config, places, _ = load_with_places(write(tmp_path / "c.toml", TEXT), ENVIRON)
    found = [places.locate(each) for each in warnings(config, 0.0)]
    assert [(each.place.rpartition(":")[2], each.label) for each in found] == [
        ("8", 'teams "acme" per_tag."project:a/b.c".burst'),
        ("8", 'teams "acme" per_tag."project:a/b.c".budget_usd_per_month'),
    ]
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path / "c.toml", TEXT.replace("project:a", "team:a").replace("burst = 2", "burst = 0")), ENVIRON)
    found = caught.value.problems
    assert [(each.place.rpartition(":")[2], each.message.partition(":")[0]) for each in found] == [
        ("8", "expected a whole number above 0, got 0 (for example"),
        ("8", "there is no tag team"),
    ]


def test_limits_are_shown_as_toml_and_changes_by_value(tmp_path: Any):
    config, places, _ = load_with_places(write(tmp_path / "c.toml", TEXT), ENVIRON)
    (line,) = [each for each in lines(config, places) if each.startswith("per_tag")]
    shown = '{ "project" = { budget_usd_per_month = 10 }, "project:a/b.c" = { burst = 2, budget_usd_per_month = 60 } }'
    assert line.partition("  #")[0] == f"per_tag = {shown}"
    new = load(write(tmp_path / "d.toml", TEXT.replace("per_month = 10", "per_day = 1").replace("a/b.c", "x")), ENVIRON)
    assert diff(config, new) == [
        Change("teams[acme].per_tag.project.budget_usd_per_day", "not set", "1"),
        Change("teams[acme].per_tag.project.budget_usd_per_month", "10", "not set"),
        Change('teams[acme].per_tag."project:a/b.c"', "{burst = 2, budget_usd_per_month = 60}", "not set"),
        Change('teams[acme].per_tag."project:x"', "not set", "{burst = 2, budget_usd_per_month = 60}"),
    ]
