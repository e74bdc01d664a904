"""Money: what is held, what was spent and saved, and the sums that budgets are checked against."""

from collections.abc import Sequence
from typing import Protocol

from gateway.domain.ledger import By, Entry, Reservation, Settlement, Usage
from gateway.domain.quota import Counters
from gateway.domain.records import Run
from gateway.money.rules.audit import Audited


class Ledger(Protocol):
    """What runs cost and what is held for those under way.

    Reservations are made by `Sharing.start` and settled by the steps that end or forget a run (`Predictions`). A line
    of the ledger and every sum of it change in one step. Days are those of `gateway.domain.windows`.
    """

    async def meters(self, scopes: Sequence[str], now: float) -> dict[str, Counters]:
        """Return what is counted for each of the scopes at that time, from one snapshot."""
        ...

    async def usage(
        self, by: By, *, since: int, until: int, team: str | None = None, limit: int = 10_000
    ) -> list[Usage]:
        """Sum up the days from `since` to `until`, both included, of a team or of each: at most `limit` rows a team.

        Days in their order, everything else by what it cost. Served from sums: the cost follows the number of days,
        keys, models and users, not that of runs.
        """
        ...

    async def adjust(self, team: str, microusd: int, reason: str, at: float) -> None:
        """Add a correction of what a team has spent. Durable. It counts in the team's budgets from then on."""
        ...

    async def spend_of(self, run_id: str) -> Entry | None:
        """Find the line that settled a run. `None` while it has not been settled, and when the line is kept no more."""
        ...

    async def newest_spend(self, limit: int) -> list[Entry]:
        """List what the runs settled last came to, oldest first: those among the ledger's last `limit` lines."""
        ...

    async def warn_once(self, team: str, name: str, day: int, percent: int) -> bool:
        """Note that a warning was given, for the window that began on `day`; say whether this was the first time."""
        ...

    async def unsettled(self, before: float) -> int:
        """Count the reservations made before that."""
        ...

    async def stuck_reservations(self, limit: int) -> list[Reservation]:
        """List reservations whose run has ended or is gone. There should never be any."""
        ...

    async def free_reservation(self, run_id: str, settlement: Settlement | None) -> bool:
        """Settle a run that has ended, or release what is held for one that is gone (`None`). Durable.

        Return whether anything was freed: not if the run is under way.
        """
        ...

    async def audit_day(self, day: int, after: int, limit: int) -> Audited:
        """Sum up at most `limit` lines of a day, beginning after the line `after`.

        With the last of them, the sums that are kept are read from the same snapshot.
        """
        ...

    async def rebuild_day(self, day: int) -> None:
        """Make every sum of a day anew from its lines, in one step. Only for days whose lines are all kept."""
        ...

    async def recount_meters(self) -> int:
        """Compare what is held with the reservations, and correct it, in one step. Return how many were wrong."""
        ...

    async def prune_ledger(self, *, lines_before: int, spent_before: int, now: float, limit: int) -> int:
        """Forget at most `limit` lines of days before `lines_before`, users' names of those days, and old counters.

        Sums by day, key and model stay for good, those of users under `other`. Counters go when no budget asks for them
        any more: amounts of days before `spent_before`, buckets that are full at `now`. Return how many went, so that
        the caller can go on.
        """
        ...


class Runs(Protocol):
    """The runs whose cost is accounted for."""

    async def run(self, run_id: str) -> Run | None:
        """Find a run."""
        ...


class Announcer(Protocol):
    """Sends messages of the gateway's own to a team's webhook."""

    async def announce(self, team: str, url: str, kind: str, payload: object) -> None:
        """Queue a message, signed like the team's other webhooks; durable on return."""
        ...
