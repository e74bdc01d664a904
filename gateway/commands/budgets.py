"""What a correction of spend does to the budgets in which it counts (`gateway usage adjust`)."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from gateway.domain import quota, tags, times
from gateway.domain.limits import Allowance, Subject, SubjectKind
from gateway.domain.quota import Counters, LimitStatus, RunLimits
from gateway.domain.teams import Caller, Team
from gateway.money.rules.refusals import dollars


class Effect(NamedTuple):
    """A budget after a correction."""

    text: str
    exhausts: bool
    """Whether it is used up by the correction, and was not before."""


class Limited(NamedTuple):
    """Whose budgets a correction counts in."""

    label: str
    """What its lines begin with; empty for the team."""
    limits: RunLimits


def subjects_of(
    team: Team, key_id: str, allowance: Allowance, user: str | None, tagged: str = tags.NONE
) -> list[Limited]:
    """Return the subjects with limits in whose budgets the spend of a key, a user and cost tags of a team counts."""
    caller = Caller(team=team, key_id=key_id, scopes=frozenset(), models=(), allowance=allowance)
    labels = {"team": "", "key": f"key {key_id}: ", "user": f"user {user}: ", "key-user": f"user {user} of the key: "}
    return [
        Limited(labels.get(subject.label) or _label_of(subject), _budgets_only(RunLimits.of_subject(subject)))
        for subject in caller.subjects(user=user, tags=tagged)
    ]


def _label_of(subject: Subject) -> str:
    return f"tag {'='.join(tags.of_limited(subject.id))}: " if subject.of is SubjectKind.TAG else ""


def effects(limited: Sequence[Limited], meters: Mapping[str, Counters], microusd: int, now: float) -> list[Effect]:
    """Return the budgets in dollars as they are after a correction by `microusd`."""
    return [
        _effect(label, status, microusd)
        for label, limits in limited
        for status in quota.statuses([limits], meters, now)
    ]


def _budgets_only(limits: RunLimits) -> RunLimits:
    return RunLimits(
        of=limits.of,
        scope=limits.scope,
        microusd_per_day=limits.microusd_per_day,
        microusd_per_month=limits.microusd_per_month,
    )


def _effect(label: str, status: LimitStatus, microusd: int) -> Effect:
    before = status.used + status.held
    after = before + microusd
    text = f"{label}{status.name}: {_signed(after)} of {dollars(status.limit)}"
    if after >= status.limit and status.resets_at is not None:
        text += f", used up until {times.render(status.resets_at)}"
    return Effect(text, exhausts=after >= status.limit > before)


def _signed(microusd: int) -> str:
    return f"-{dollars(-microusd)}" if microusd < 0 else dollars(microusd)
