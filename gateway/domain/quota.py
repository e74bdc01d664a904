"""Whether a create may be admitted: every limit that it must pass, of its team, its key and its user.

See docs/architecture.md, Limits.

All are checked, then all are taken: a create that one of them refuses leaves none of them fuller. What is *held* for
runs under way counts in the day and the month that are under way; what is *spent* counts in those of its settlement.
So a budget can be overspent by no more than runs already admitted cost above their estimates (docs/architecture.md,
Invariants 7).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from gateway.domain import rates, windows
from gateway.domain.limits import Subject, SubjectKind
from gateway.domain.rates import Rate
from gateway.domain.windows import Window

CONCURRENCY_RETRY_SECONDS = 1.0
"""When to try again where runs under way are in the way, of which nobody knows how long they take."""


class LimitKind(StrEnum):
    """What a limit counts."""

    RATE = "rate"
    CONCURRENCY = "concurrency"
    SECONDS = "seconds"
    DOLLARS = "dollars"

    @property
    def is_budget(self) -> bool:
        """Whether it is used up by what runs take, and waiting a little does not help."""
        return self in (LimitKind.SECONDS, LimitKind.DOLLARS)


def scope(of: SubjectKind, name: str) -> str:
    """Name the counters of somebody."""
    return f"{of}/{name}"


def scopes_of(team: str, key_id: str = "", user: str | None = None) -> tuple[str, ...]:
    """Name the counters that are kept whether or not anything is limited, so that a new budget knows what was spent."""
    scopes = [scope(SubjectKind.TEAM, team)]
    if key_id:
        scopes.append(scope(SubjectKind.KEY, key_id))
    if user is not None:
        scopes.append(scope(SubjectKind.USER, f"team {team}: {user}"))
    return tuple(scopes)


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a team, a key or a user. `None` limits nothing. Time in milliseconds, money in micro-dollars."""

    of: SubjectKind
    scope: str
    predictions: Rate | None = None
    concurrent: int | None = None
    milliseconds_per_day: int | None = None
    milliseconds_per_month: int | None = None
    microusd_per_day: int | None = None
    microusd_per_month: int | None = None

    @classmethod
    def of_subject(cls, subject: Subject) -> "Allowance":
        """Return what one who is counted apart may have."""
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
        """Whether it keeps nothing from running: rates of requests are no matter of runs."""
        return self == Allowance(of=self.of, scope=self.scope)


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


class ReservationRequest(msgspec.Struct, frozen=True):
    """What a create asks for: the estimate of its run, and the limits that it must pass."""

    microusd: int
    milliseconds: int
    allowances: tuple[Allowance, ...] = ()

    def scopes(self, team: str, key_id: str, user: str | None) -> tuple[str, ...]:
        """Name all counters in which it, and what its run costs, is counted."""
        return tuple(dict.fromkeys((*scopes_of(team, key_id, user), *(each.scope for each in self.allowances))))


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """What is counted for one team, key or user now."""

    open: int = 0
    """Runs under way."""
    held_milliseconds: int = 0
    held_microusd: int = 0
    day_milliseconds: int = 0
    """Settled in the day that is under way; the next three likewise."""
    day_microusd: int = 0
    month_milliseconds: int = 0
    month_microusd: int = 0
    full_at: float = rates.FULL
    """The bucket of predictions a minute."""


class LimitStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a limit is used. Counts as they are, time in milliseconds, money in micro-dollars."""

    name: str
    """As the config calls it."""
    of: SubjectKind
    scope: str
    sort: LimitKind
    limit: float
    used: int
    held: int
    """Of what is not used yet, what runs under way may take."""
    remaining: int
    window: Window | None = None
    """Of a budget: the stretch that it is for."""
    resets_at: float | None
    """When all of it is free again, if nothing else is taken; `None` where only ends of runs free any of it."""


class Refused(msgspec.Struct, frozen=True):
    """The limit that is in the way, and after how many seconds to try again."""

    standing: LimitStatus
    retry_after: float


class Granted(msgspec.Struct, frozen=True):
    """Nothing is in the way; the buckets as they are once the create is taken from them, by scope."""

    full_at: Mapping[str, float]


def decide(meters: Mapping[str, Counters], demand: ReservationRequest, now: float) -> Granted | Refused:
    """Check all limits. Of those that are in the way the one is named that stays in the way longest.

    A budget comes before a rate, because waiting helps with a rate only.
    """
    in_the_way: list[Refused] = []
    full_at: dict[str, float] = {}
    for allowance in demand.allowances:
        meter = meters.get(allowance.scope, _UNUSED)
        in_the_way += _refusals(allowance, meter, demand, now)
        if allowance.predictions is not None:
            full_at[allowance.scope] = rates.take(
                _full_at(meter, allowance.predictions, now), allowance.predictions, now
            )
    if in_the_way:
        return max(in_the_way, key=lambda each: (each.standing.sort.is_budget, each.retry_after))
    return Granted(full_at)


_UNUSED = Counters()


def standings(allowances: Sequence[Allowance], meters: Mapping[str, Counters], now: float) -> list[LimitStatus]:
    """Say how far each limit is used."""
    return [
        standing
        for allowance in allowances
        for standing, _ in _measured(allowance, meters.get(allowance.scope, _UNUSED), _NOTHING, now)
    ]


_NOTHING = ReservationRequest(0, 0)


def _refusals(allowance: Allowance, meter: Counters, demand: ReservationRequest, now: float) -> Iterator[Refused]:
    for standing, retry_after in _measured(allowance, meter, demand, now):
        if retry_after > 0:
            yield Refused(standing, retry_after)


def _measured(
    allowance: Allowance, meter: Counters, demand: ReservationRequest, now: float
) -> Iterator[tuple[LimitStatus, float]]:
    """Look at each limit that is set: how far it is used, and in how many seconds it may let the demand pass."""
    if (rate := allowance.predictions) is not None:
        full_at = _full_at(meter, rate, now)
        remaining = rates.remaining(full_at, rate, now)
        standing = LimitStatus(
            name="predictions_per_minute",
            of=allowance.of,
            scope=allowance.scope,
            sort=LimitKind.RATE,
            limit=rate.per_minute,
            used=rate.burst - remaining,
            held=0,
            remaining=remaining,
            resets_at=now + rates.reset_seconds(full_at, now),
        )
        yield standing, rates.wait(full_at, rate, now)
    if (concurrent := allowance.concurrent) is not None:
        standing = LimitStatus(
            name="concurrent_predictions",
            of=allowance.of,
            scope=allowance.scope,
            sort=LimitKind.CONCURRENCY,
            limit=concurrent,
            used=meter.open,
            held=0,
            remaining=max(0, concurrent - meter.open),
            resets_at=None,
        )
        yield standing, 0.0 if meter.open < concurrent else CONCURRENCY_RETRY_SECONDS
    for name, sort, window, limit, used, held, asked in _budgets(allowance, meter, demand):
        if limit is None:
            continue
        end = windows.ends_at(window, now)
        standing = LimitStatus(
            name=name,
            of=allowance.of,
            scope=allowance.scope,
            sort=sort,
            limit=limit,
            used=used,
            held=held,
            remaining=max(0, limit - used - held),
            window=window,
            resets_at=end,
        )
        # What costs nothing is not kept from running by a budget that is used up.
        passes = asked == 0 or used + held + asked <= limit
        yield standing, 0.0 if passes else _budget_wait(used + asked <= limit, end - now)


def _budget_wait(is_held_only: bool, seconds: float) -> float:
    # What is held may be free as soon as a run ends; what is spent is spent until the window ends.
    return min(seconds, CONCURRENCY_RETRY_SECONDS) if is_held_only else seconds


def _budgets(
    allowance: Allowance, meter: Counters, demand: ReservationRequest
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
    """Return the bucket's state, no emptier than empty: the clock, or the limit, may have been set back."""
    return min(meter.full_at, now + rate.tolerance)


def seconds_to_wait(retry_after: float) -> int:
    """Return what `Retry-After` says: whole seconds, at least one."""
    return max(1, math.ceil(retry_after))
