"""Decide whether a create is admitted: check the limits on runs of its team, key, user, address and cost tags.

See docs/architecture.md, Limits.

All limits are checked before any is charged, so a refused create changes nothing. Amounts *held* for runs in progress
count in the current day and month; *spent* amounts count in the day and month of their settlement. So a budget can be
overspent only by the amount by which admitted runs exceed their estimates (docs/architecture.md, Invariants 7).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from gateway.domain import rates, tags, windows
from gateway.domain.limits import Subject, SubjectKind
from gateway.domain.rates import Rate
from gateway.domain.windows import Window

NEVER = math.inf
"""Seconds until a retry of a create whose estimate exceeds a whole budget."""
CONCURRENCY_RETRY_SECONDS = 1.0
"""Retry interval when runs in progress must end first: their remaining time is unknown."""


class LimitKind(StrEnum):
    """What a limit counts."""

    RATE = "rate"
    CONCURRENCY = "concurrency"
    SECONDS = "seconds"
    DOLLARS = "dollars"
    WEBHOOKS = "webhooks"
    """Places in the webhook queue: see `gateway.domain.webhook_places`."""

    @property
    def is_budget(self) -> bool:
        """Whether it is a budget, so that creates over it do not wait."""
        return self in (LimitKind.SECONDS, LimitKind.DOLLARS)


def scope(of: SubjectKind, name: str) -> str:
    """Return the name of a subject's counters."""
    return f"{of}/{name}"


def scopes_of(team: str, key_id: str = "", user: str | None = None, tagged: str = tags.NONE) -> tuple[str, ...]:
    """Return the scopes that are counted even without limits, so that a new budget includes earlier spending.

    `tagged`: the cost tags, as `gateway.domain.tags` writes them.
    """
    scopes = [scope(SubjectKind.TEAM, team)]
    if key_id:
        scopes.append(scope(SubjectKind.KEY, key_id))
    if user is not None:
        scopes.append(scope(SubjectKind.USER, f"team {team}: {user}"))
    scopes += [scope(SubjectKind.TAG, tags.limited_as(team, key, value)) for key, value in tags.pairs(tagged)]
    return tuple(scopes)


def scopes_of_correction(
    team: str, key_id: str = "", user: str | None = None, tagged: str = tags.NONE
) -> tuple[str, ...]:
    """Return every scope in which the spend of a run can count, whatever limits there are now."""
    scopes = scopes_of(team, key_id, user, tagged)
    return scopes if not key_id or user is None else (*scopes, scope(SubjectKind.USER, f"key {key_id}: {user}"))


class RunLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits on runs of one subject. `None`: no limit. Time is in milliseconds, money in micro-dollars."""

    of: SubjectKind
    scope: str
    predictions: Rate | None = None
    concurrent: int | None = None
    milliseconds_per_day: int | None = None
    milliseconds_per_month: int | None = None
    microusd_per_day: int | None = None
    microusd_per_month: int | None = None

    @classmethod
    def of_subject(cls, subject: Subject) -> "RunLimits":
        """Return the limits on runs of a subject."""
        limits = subject.limits
        per_minute = limits.predictions_per_minute
        return cls(
            of=subject.of,
            scope=scope(subject.of, subject.id),
            predictions=None if per_minute is None else Rate.of(per_minute, limits.burst),
            concurrent=limits.concurrent_predictions,
            milliseconds_per_day=_milliseconds(limits.seconds_per_day),
            milliseconds_per_month=_milliseconds(limits.seconds_per_month),
            microusd_per_day=limits.microusd_per_day,
            microusd_per_month=limits.microusd_per_month,
        )

    @property
    def is_unlimited(self) -> bool:
        """Whether it has no limit on runs. Request rates do not count here."""
        return self == RunLimits(of=self.of, scope=self.scope)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


class ReservationRequest(msgspec.Struct, frozen=True):
    """The estimate of a run and the limits that it must pass."""

    microusd: int
    milliseconds: int
    allowances: tuple[RunLimits, ...] = ()

    def scopes(self, team: str, key_id: str, user: str | None, tagged: str = tags.NONE) -> tuple[str, ...]:
        """Return all scopes that count the reservation and the cost of the run."""
        counted = scopes_of(team, key_id, user, tagged)
        return tuple(dict.fromkeys((*counted, *(each.scope for each in self.allowances))))


NO_RESERVATION = ReservationRequest(0, 0)


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """The current counters of one scope."""

    open: int = 0
    """Runs in progress."""
    held_milliseconds: int = 0
    """Reserved for runs in progress."""
    held_microusd: int = 0
    day_milliseconds: int = 0
    """Settled in the current day."""
    day_microusd: int = 0
    month_milliseconds: int = 0
    """Settled in the current month, today included."""
    month_microusd: int = 0
    full_at: float = rates.FULL
    """State of the predictions-per-minute bucket."""


class LimitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A limit and its usage, in counts, milliseconds or micro-dollars."""

    name: str
    """The name in the config."""
    of: SubjectKind
    scope: str
    kind: LimitKind
    limit: float
    used: int
    held: int
    """Reserved for runs in progress, in addition to `used`."""
    remaining: int
    window: Window | None = None
    """The window of a budget."""
    resets_at: float | None
    """When nothing of it is used, if nothing else is charged; `None` if only the end of runs frees it."""

    @property
    def tag(self) -> dict[str, str]:
        """The cost tag and its value whose limit it is; empty for a limit of something else."""
        if self.of is not SubjectKind.TAG:
            return {}
        key, value = tags.of_limited(self.scope.partition("/")[2])
        return {"tag": key, "value": value}


def rate_status(
    name: str,
    of: SubjectKind,
    limit: float,
    *,
    used: int = 0,
    remaining: int = 0,
    resets_at: float | None = None,
) -> LimitStatus:
    """Return a rate that is kept in memory, not in the store, as a limit."""
    return LimitStatus(
        name=name,
        of=of,
        scope=str(of),
        kind=LimitKind.RATE,
        limit=limit,
        used=used,
        held=0,
        remaining=remaining,
        resets_at=resets_at,
    )


class Refused(msgspec.Struct, frozen=True):
    """The exceeded limit, and the seconds until a retry; `NEVER` if the estimate exceeds the whole limit."""

    status: LimitStatus
    retry_after: float


class Granted(msgspec.Struct, frozen=True):
    """The create is admitted. `full_at` is the new state of the rate buckets, by scope."""

    full_at: Mapping[str, float]


def decide(meters: Mapping[str, Counters], demand: ReservationRequest, now: float) -> Granted | Refused:
    """Check all limits. Of several exceeded ones, return the one with the longest wait.

    Budgets come before other limits, because waiting a short time does not help there. Of those that the estimate
    exceeds as a whole, the smallest is returned.
    """
    exceeded: list[Refused] = []
    full_at: dict[str, float] = {}
    for allowance in demand.allowances:
        meter = meters.get(allowance.scope, _UNUSED)
        exceeded += _refusals(allowance, meter, demand, now)
        if allowance.predictions is not None:
            full_at[allowance.scope] = rates.take(
                _full_at(meter, allowance.predictions, now), allowance.predictions, now
            )
    if exceeded:
        return max(exceeded, key=_hopelessness)
    return Granted(full_at)


def _hopelessness(refused: Refused) -> tuple[bool, float, float]:
    size = -refused.status.limit if refused.retry_after == NEVER else 0.0
    return refused.status.kind.is_budget, refused.retry_after, size


_UNUSED = Counters()


def statuses(allowances: Sequence[RunLimits], meters: Mapping[str, Counters], now: float) -> list[LimitStatus]:
    """Return the status of each limit."""
    return [
        status
        for allowance in allowances
        for status, _ in _measured(allowance, meters.get(allowance.scope, _UNUSED), NO_RESERVATION, now)
    ]


def _refusals(allowance: RunLimits, meter: Counters, demand: ReservationRequest, now: float) -> Iterator[Refused]:
    for status, retry_after in _measured(allowance, meter, demand, now):
        if retry_after > 0:
            yield Refused(status, retry_after)


def _measured(
    allowance: RunLimits, meter: Counters, demand: ReservationRequest, now: float
) -> Iterator[tuple[LimitStatus, float]]:
    """Yield the status of each limit that is set, and the seconds until it can admit the demand; 0 if it does now."""
    if (rate := allowance.predictions) is not None:
        full_at = _full_at(meter, rate, now)
        remaining = rates.remaining(full_at, rate, now)
        status = LimitStatus(
            name="predictions_per_minute",
            of=allowance.of,
            scope=allowance.scope,
            kind=LimitKind.RATE,
            limit=rate.per_minute,
            used=rate.burst - remaining,
            held=0,
            remaining=remaining,
            resets_at=now + rates.reset_seconds(full_at, now),
        )
        yield status, rates.wait(full_at, rate, now)
    if (concurrent := allowance.concurrent) is not None:
        status = LimitStatus(
            name="concurrent_predictions",
            of=allowance.of,
            scope=allowance.scope,
            kind=LimitKind.CONCURRENCY,
            limit=concurrent,
            used=meter.open,
            held=0,
            remaining=max(0, concurrent - meter.open),
            resets_at=None,
        )
        yield status, 0.0 if meter.open < concurrent else CONCURRENCY_RETRY_SECONDS
    for name, kind, window, limit, used, held, asked in _budgets(allowance, meter, demand):
        if limit is None:
            continue
        end = windows.ends_at(window, now)
        status = LimitStatus(
            name=name,
            of=allowance.of,
            scope=allowance.scope,
            kind=kind,
            limit=limit,
            used=used,
            held=held,
            remaining=max(0, limit - used - held),
            window=window,
            resets_at=end,
        )
        # A free run passes even if the budget is used up.
        passes = asked == 0 or used + held + asked <= limit
        yield status, 0.0 if passes else _budget_wait(limit, used, asked, end - now)


def _budget_wait(limit: int, used: int, asked: int, seconds: float) -> float:
    if asked > limit:
        return NEVER
    # Held amounts can be released as soon as a run ends. Spent amounts count until the window ends.
    return min(seconds, CONCURRENCY_RETRY_SECONDS) if used + asked <= limit else seconds


def _budgets(
    allowance: RunLimits, meter: Counters, demand: ReservationRequest
) -> Iterator[tuple[str, LimitKind, Window, int | None, int, int, int]]:
    seconds, held_ms, asked_ms = LimitKind.SECONDS, meter.held_milliseconds, demand.milliseconds
    dollars, held_usd, asked_usd = LimitKind.DOLLARS, meter.held_microusd, demand.microusd
    day, month = Window.DAY, Window.MONTH
    of = allowance
    yield "seconds_per_day", seconds, day, of.milliseconds_per_day, meter.day_milliseconds, held_ms, asked_ms
    yield "seconds_per_month", seconds, month, of.milliseconds_per_month, meter.month_milliseconds, held_ms, asked_ms
    yield "budget_usd_per_day", dollars, day, of.microusd_per_day, meter.day_microusd, held_usd, asked_usd
    yield "budget_usd_per_month", dollars, month, of.microusd_per_month, meter.month_microusd, held_usd, asked_usd


def _full_at(meter: Counters, rate: Rate, now: float) -> float:
    """Return the bucket's state, at most empty. It can be beyond that after the clock or the limit was set back."""
    return min(meter.full_at, now + rate.tolerance)


def seconds_to_wait(retry_after: float) -> int:
    """Return the value of `Retry-After`: seconds, rounded up, at least 1."""
    return max(1, math.ceil(retry_after))
