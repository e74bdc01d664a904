"""What a correction of a team's spend does to its budgets (`gateway usage adjust`)."""

from typing import NamedTuple

from gateway.config import Team
from gateway.domain import quota, times
from gateway.domain.limits import SubjectKind
from gateway.domain.quota import Counters, LimitStatus, RunLimits
from gateway.money.rules.refusals import dollars


class Effect(NamedTuple):
    """A budget after a correction."""

    text: str
    exhausts: bool
    """Whether it is used up by the correction, and was not before."""


def scope_of(team: Team) -> str:
    """Return the scope that counts what a team spends."""
    return quota.scope(SubjectKind.TEAM, team.name)


def effects(team: Team, meter: Counters, microusd: int, now: float) -> list[Effect]:
    """Return the team's budgets in dollars as they are after a correction by `microusd`."""
    limits = RunLimits(
        of=SubjectKind.TEAM,
        scope=scope_of(team),
        microusd_per_day=team.budget_microusd_per_day,
        microusd_per_month=team.budget_microusd_per_month,
    )
    return [_effect(status, microusd) for status in quota.statuses([limits], {limits.scope: meter}, now)]


def _effect(status: LimitStatus, microusd: int) -> Effect:
    before = status.used + status.held
    after = before + microusd
    text = f"{status.name}: {_signed(after)} of {dollars(status.limit)}"
    if after >= status.limit and status.resets_at is not None:
        text += f", used up until {times.render(status.resets_at)}"
    return Effect(text, exhausts=after >= status.limit > before)


def _signed(microusd: int) -> str:
    return f"-{dollars(-microusd)}" if microusd < 0 else dollars(microusd)
