"""The data of the console's overview, collected by `gateway.operations.dashboard` and rendered by `gateway.dashboard`.

A board is either the operators', with all teams, or a single team's, with only its own data.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gateway.domain.ledger import Usage
from gateway.domain.limits import Limits
from gateway.domain.quota import Counters
from gateway.money.rules import projection, reports

MOST_ROWS = 50
"""Maximum number of rows of a table. The number of further rows is shown; `gateway usage` lists all of them."""

MOST_USERS = 20
"""Maximum number of users on the overview: those who cost most."""


class Live(msgspec.Struct, frozen=True, kw_only=True):
    """The current activity of this process."""

    requests: int | None
    """Requests in progress; `None` on a team's board, because they are not counted by team."""
    runs: int
    streams: int
    waiting: int
    """Creates that wait for a limit."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A team's spending and budgets, in micro-dollars."""

    team: str
    day_spent: int
    day_limit: int | None
    month_spent: int
    month_limit: int | None
    held: int
    projected: int
    """Projected cost of the month."""

    @property
    def exceeds(self) -> bool:
        """Whether the projected cost exceeds the month's budget."""
        return self.month_limit is not None and self.projected > self.month_limit


class ActiveRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run in progress."""

    team: str
    prediction: str
    """The id of the prediction that started it."""
    target: str
    status: str
    since: float


class RecentError(msgspec.Struct, frozen=True, kw_only=True):
    """An error that a caller got, with its explanation."""

    at: float
    team: str | None
    """`None` if the caller is unknown."""
    what: str
    detail: str
    prediction: str | None = None
    is_upstreams: bool = False
    """Whether the detail is Replicate's or the model's, which can quote the input."""
    key: str | None = None
    """The name of the caller's key."""
    user: str | None = None
    target: str | None = None
    request_id: str | None = None
    count: int = 1
    """How many equal errors it stands for, of which it is the newest."""


class RefusedOrigin(msgspec.Struct, frozen=True, kw_only=True):
    """An origin whose pages may not use the gateway, and when one last tried."""

    at: float
    origin: str
    team: str | None
    """The team whose key the last request used; `None` for a preflight."""
    count: int


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Number of requests refused for one reason since the process started."""

    team: str | None
    reason: str
    count: int


class DayUsage(msgspec.Struct, frozen=True):
    """The usage of one day: the sum over all teams shown, and the micro-dollars spent by each of them."""

    day: int
    sums: Usage
    spent: tuple[tuple[str, int], ...] = ()


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """All data of the page."""

    whose: str | None
    """The team; `None` for the operators."""
    at: float
    since: int
    until: int
    """The first and last day of the sums, both included."""
    total: Usage
    days: tuple[DayUsage, ...]
    teams: tuple[Usage, ...]
    targets: tuple[Usage, ...]
    users: tuple[Usage, ...] = ()
    """One more than `MOST_USERS` if there are more."""
    budgets: tuple[Budget, ...]
    failed_webhooks: tuple[tuple[str, int], ...] = ()
    """Teams with webhooks that are not tried again, and how many."""
    failed_checks: tuple[str, ...] = ()
    """The results of failed checks of this process, for operators only."""
    live: Live
    runs: tuple[ActiveRun, ...]
    recent_errors: tuple[RecentError, ...]
    refusals: tuple[Refusal, ...]
    refused_origins: tuple[RefusedOrigin, ...] = ()
    """For operators only: a preflight names no team."""


def predictions(sums: Usage) -> int:
    """Return the number of predictions: runs, joined and hits."""
    return sums.runs + sums.joined + sums.hits


def share(part: int, whole: int) -> float | None:
    """Return a fraction; `None` if `whole` is 0."""
    return part / whole if whole else None


def by_days(rows: Iterable[Usage], since: int, until: int) -> tuple[DayUsage, ...]:
    """Sum up rows of teams and days by day, from `since` to `until`. Days without usage are included."""
    found: dict[int, list[Usage]] = {day: [] for day in range(since, until + 1)}
    for row in rows:
        if isinstance(row.what, int) and row.what in found:
            found[row.what].append(row)
    return tuple(
        DayUsage(day, reports.total_of(of_day), tuple((row.team, row.microusd) for row in of_day if row.microusd))
        for day, of_day in found.items()
    )


def budget(team: str, limits: Limits, meter: Counters, by_day: Mapping[int, int], now: float) -> Budget:
    """Return a team's spending and budgets. `by_day` is its spending on the days that the projection needs."""
    return Budget(
        team=team,
        day_spent=meter.day_microusd,
        day_limit=limits.microusd_per_day,
        month_spent=meter.month_microusd,
        month_limit=limits.microusd_per_month,
        held=meter.held_microusd,
        projected=projection.month_end(meter.month_microusd, by_day, now),
    )


def by_cost(rows: Sequence[Usage]) -> tuple[Usage, ...]:
    """Sort rows by cost, highest first, then by number of predictions."""
    return tuple(sorted(rows, key=lambda row: (-row.microusd, -predictions(row), row.team, str(row.what))))
