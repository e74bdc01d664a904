"""What a correction of a team's spend does to its budgets (`gateway usage adjust`)."""

from collections.abc import Mapping
from typing import NamedTuple

from gateway.config import Team
from gateway.domain import quota, tags, times
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import Counters, LimitStatus, RunLimits
from gateway.money.rules.refusals import dollars


class Effect(NamedTuple):
    """A budget after a correction."""

    text: str
    exhausts: bool
    """Whether it is used up by the correction, and was not before."""
    is_of_tag: bool
    """Whether it is that of a cost tag, not of the team."""


def scopes_of(team: Team, tagged: str = tags.NONE) -> tuple[str, ...]:
    """Return the scopes that count what a team spends, and what it spends with these cost tags."""
    return quota.scopes_of(team.name, tagged=tagged)


def effects(
    team: Team, meters: Mapping[str, Counters], microusd: int, now: float, tagged: str = tags.NONE
) -> list[Effect]:
    """Return the budgets in dollars, of a team and of its cost tags, as they are after a correction by `microusd`."""
    of_tags = [team.per_tag.get(f"{key}:{value}", team.per_tag.get(key)) for key, value in tags.pairs(tagged)]
    limits = [
        RunLimits(
            of=SubjectKind(scope.partition("/")[0]),
            scope=scope,
            microusd_per_day=given.budget_microusd_per_day,
            microusd_per_month=given.budget_microusd_per_month,
        )
        for scope, given in zip(scopes_of(team, tagged), (team, *of_tags), strict=True)
        if given is not None
    ]
    return [_effect(status, microusd) for status in quota.statuses(limits, meters, now)]


def _effect(status: LimitStatus, microusd: int) -> Effect:
    before = status.used + status.held
    after = before + microusd
    of = f"{'='.join(status.tag.values())} " if status.tag else ""
    text = f"{of}{status.name}: {_signed(after)} of {dollars(status.limit)}"
    if after >= status.limit and status.resets_at is not None:
        text += f", used up until {times.render(status.resets_at)}"
    return Effect(text, exhausts=after >= status.limit > before, is_of_tag=bool(status.tag))


def _signed(microusd: int) -> str:
    return f"-{dollars(-microusd)}" if microusd < 0 else dollars(microusd)
