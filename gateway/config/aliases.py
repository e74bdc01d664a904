"""Checks and warnings about aliases."""

from collections.abc import Iterable, Iterator, Mapping

from gateway.config.model import Config
from gateway.config.positions import Location
from gateway.config.problems import Problem
from gateway.config.report import Report
from gateway.config.sections import Alias
from gateway.config.teams import Team
from gateway.domain.scopes import patterns_outside
from gateway.domain.targets import Target, exact_models
from gateway.models.rules.aliases import parse_target
from gateway.money.rules.price_table import OFFICIAL


def compare_aliases(config: Config, report: Report) -> None:
    """Report aliases that are given twice, that lead to an alias, or that name an unknown team."""
    teams = {team.name for team in config.teams}
    for index, alias in enumerate(config.aliases):
        location: Location = ("aliases", index)
        uses: list[Location] = [(*location, "name"), (*location, "target"), (*location, "teams")]
        unknown = [team for team in alias.teams or () if team not in teams]
        if unknown:
            report.add(
                (*location, "teams"), f"{', '.join(unknown)}: no team of that name in this config", uses=[("teams",)]
            )
        for earlier, other in enumerate(config.aliases[:index]):
            if alias.name == other.name and _same_scope(alias, other):
                first = report.places.mention(("aliases", earlier, "name"))
                report.add((*location, "name"), f"same name as {first}, for the same team", uses=uses)
        if _target(alias).model == alias.name:
            report.add((*location, "target"), "is the alias itself", uses=uses)
        for number, other in enumerate(config.aliases):
            if number != index and _target(alias).model == other.name and _meet(alias, other):
                what = report.places.mention(("aliases", number, "name"))
                report.add((*location, "target"), f"is an alias itself ({what}): name its target instead", uses=uses)


def warn_of_aliases(config: Config) -> Iterator[Problem]:
    """Yield warnings about aliases that hide a model, or that no team may use."""
    priced, ruled = (each.model for each in config.prices.models), (each.model for each in config.cache.rules)
    known = set(exact_models([*OFFICIAL, *priced, *ruled]))
    own = [config.aliases_of(team.name) for team in config.teams]
    for index, alias in enumerate(config.aliases):
        path = f"aliases[{index}]"
        if alias.name in known:
            yield Problem(
                f"{path}.name", f"hides the model of that name: every request for {alias.name} runs {alias.target}"
            )
        target = _target(alias).model or ""
        for number, team in enumerate(config.teams):
            if alias.teams is not None and team.name not in alias.teams:
                continue
            if alias.teams is not None and models_outside(team, [target], own[number]):
                yield Problem(
                    f"{path}.target", f"{target} is not among the models of the team {team.name}, which gets a 403"
                )


def models_outside(team: Team, wanted: Iterable[str], aliases: Mapping[str, str]) -> list[str]:
    """Return the wanted models that the list of a team does not cover. An alias is what it stands for, in both."""

    def real(model: str) -> str:
        return model if model not in aliases else parse_target(aliases[model]).model or model

    listed = None if team.models is None else list(map(real, team.models))
    outside = [model for model in wanted if patterns_outside(listed, [real(model)])]
    return [f"{model} (an alias of {aliases[model]})" if model in aliases else model for model in outside]


def _target(alias: Alias) -> Target:
    return parse_target(alias.target)


def _meet(one: Alias, other: Alias) -> bool:
    """Say whether some team has both aliases."""
    return one.teams is None or other.teams is None or not set(one.teams).isdisjoint(other.teams)


def _same_scope(one: Alias, other: Alias) -> bool:
    """Say whether two aliases of one name contradict each other. That of a team takes precedence over that of all."""
    if one.teams is None or other.teams is None:
        return one.teams is other.teams
    return not set(one.teams).isdisjoint(other.teams)
