"""What the usage page shows: values only, gathered by `gateway.operations.dashboard` and drawn by `gateway.dashboard`.

One board is either the operators', of all teams, or one team's own; which one is decided before anything is gathered.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gateway.domain.ledger import Usage
from gateway.domain.limits import Limits
from gateway.domain.quota import Counters
from gateway.money.rules import projection, reports

MOST_ROWS = 50
"""Rows of a table: a page is for looking at. What is beyond is counted; `gateway usage` has all of it."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """What is under way now, in this process."""

    requests: int | None
    """Being answered; `None` on a team's board, since they are not counted by team."""
    runs: int
    streams: int
    waiting: int
    """Creates that wait for a limit."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """How a team's money stands, in micro-dollars."""

    team: str
    day_spent: int
    day_limit: int | None
    month_spent: int
    month_limit: int | None
    held: int
    projected: int
    """What the month will have cost at its end."""

    @property
    def exceeds(self) -> bool:
        """Whether the month's budget will not do, if it goes on like this."""
        return self.month_limit is not None and self.projected > self.month_limit


class ActiveRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run under way."""

    team: str
    prediction: str
    """The id of the one that started it."""
    target: str
    status: str
    since: float


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """Something that went wrong for a caller, with its explanation."""

    at: float
    team: str | None
    """`None` where nobody knows who it was."""
    what: str
    detail: str
    prediction: str | None = None


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """How often requests were refused since the process started."""

    team: str | None
    reason: str
    count: int


class DayUsage(msgspec.Struct, frozen=True):
    """A day of all teams that are shown, and what each of them spent on it."""

    day: int
    sums: Usage
    spent: tuple[tuple[str, int], ...] = ()


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """The whole page."""

    whose: str | None
    """The team; `None` for the operators."""
    at: float
    since: int
    until: int
    """The days that are summed up, both included."""
    total: Usage
    days: tuple[DayUsage, ...]
    teams: tuple[Usage, ...]
    targets: tuple[Usage, ...]
    budgets: tuple[Budget, ...]
    live: Live
    runs: tuple[ActiveRun, ...]
    recent_errors: tuple[Trouble, ...]
    refusals: tuple[Refusal, ...]


def predictions(sums: Usage) -> int:
    """Count predictions however they were answered."""
    return sums.runs + sums.joined + sums.hits


def share(part: int, whole: int) -> float | None:
    """Return a part as a fraction; `None` of nothing."""
    return part / whole if whole else None


def by_days(rows: Iterable[Usage], since: int, until: int) -> tuple[DayUsage, ...]:
    """Sum rows of teams and days up by day. Days on which nothing happened are there too."""
    found: dict[int, list[Usage]] = {day: [] for day in range(since, until + 1)}
    for row in rows:
        if isinstance(row.what, int) and row.what in found:
            found[row.what].append(row)
    return tuple(
        DayUsage(day, reports.total_of(of_day), tuple((row.team, row.microusd) for row in of_day if row.microusd))
        for day, of_day in found.items()
    )


def budget(team: str, limits: Limits, meter: Counters, by_day: Mapping[int, int], now: float) -> Budget:
    """Say how a team's money stands. `by_day` is what it spent on the days that the projection asks for."""
    return Budget(
        team=team,
        day_spent=meter.day_microusd,
        day_limit=limits.microusd_per_day,
        month_spent=meter.month_microusd,
        month_limit=limits.microusd_per_month,
        held=meter.held_microusd,
        projected=projection.month_end(meter.month_microusd, by_day, now),
    )


def dearest(rows: Sequence[Usage]) -> tuple[Usage, ...]:
    """Put what cost most first; of equal cost, what was asked for most."""
    return tuple(sorted(rows, key=lambda row: (-row.microusd, -predictions(row), row.team, str(row.what))))
