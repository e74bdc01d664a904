"""Protocols of money: the ledger and its sums, the runs that are charged, and sending warnings."""

from collections.abc import Sequence
from typing import Protocol

from gateway.domain import tags
from gateway.domain.audit import Actor
from gateway.domain.ledger import BudgetWarning, By, ChargeSum, Entry, LedgerLine, Reservation, Settlement, Usage
from gateway.domain.quota import Counters
from gateway.domain.records import Run
from gateway.domain.teams import Caller
from gateway.money.rules.audit import Audited


class Ledger(Protocol):
    """The costs of runs and the reservations of runs in progress.

    `Sharing.start` makes reservations; the operations that end or delete a run (`Predictions`) settle them. An entry
    and all sums that it belongs to change in one transaction. Days are those of `gateway.domain.windows`.
    """

    async def meters(self, scopes: Sequence[str], now: float) -> dict[str, Counters]:
        """Return the counters of each scope at `now`, from one snapshot."""
        ...

    async def usage(
        self, by: By, *, since: int, until: int, team: str | None = None, tag: str = "", limit: int = 10_000
    ) -> list[Usage]:
        """Sum up the days from `since` to `until`, both included, of one team or of every team.

        Return at most `limit` rows per team: days in order, everything else by cost, highest first. By tag, the values
        of `tag`, and in one more row what has none. Reads daily sums,
        so the time depends on the number of days, keys, models and users, not on the number of runs.
        """
        ...

    async def adjust(
        self,
        team: str,
        microusd: int,
        reason: str,
        at: float,
        *,
        actor: Actor,
        adjustment_id: str | None = None,
        key_id: str = "",
        user: str | None = None,
        tagged: str = tags.NONE,
    ) -> bool:
        """Add a correction of spending: of a team, and of a key, a user and cost tags of it. Durable.

        It counts in their budgets at once, and in their usage.

        One whose answer was lost can be repeated with the same id. Return whether this call added it.
        It is recorded in the audit log, in the same transaction.
        """
        ...

    async def spend_of(self, run_id: str) -> Entry | None:
        """Return the entry that settled a run; `None` if it has not been settled or the entry was deleted."""
        ...

    async def newest_spend(self, limit: int) -> list[Entry]:
        """Return the runs' entries among the ledger's last `limit` entries, oldest first."""
        ...

    async def lines(self, day: int, *, after: int, limit: int, team: str | None = None) -> list[LedgerLine]:
        """Return at most `limit` entries of a day with numbers above `after`, in order: of one team or of all."""
        ...

    async def charges(self, day: int, *, team: str | None = None) -> list[ChargeSum]:
        """Sum up a day's settlements and corrections, of one team or of every team."""
        ...

    async def warned(self, team: str, name: str, day: int) -> int:
        """Return the highest percentage that was warned of in the budget window that began on `day`; 0 for none."""
        ...

    async def warn_once(self, warning: BudgetWarning) -> bool:
        """Record a warning; return whether it is the first one."""
        ...

    async def unsettled(self, before: float) -> int:
        """Return the number of reservations made before that time."""
        ...

    async def stuck_reservations(self, limit: int) -> list[Reservation]:
        """List reservations whose run has ended or does not exist. Without a defect there are none."""
        ...

    async def free_reservation(self, run_id: str, settlement: Settlement | None) -> bool:
        """Settle a run that has ended, or release the reservation of a run that does not exist (`None`). Durable.

        Return `False`, and change nothing, if the run is in progress.
        """
        ...

    async def audit_day(self, day: int, after: int, limit: int) -> Audited:
        """Sum up at most `limit` entries of a day, beginning after the entry numbered `after`.

        The step with the last entry also returns the stored sums, read from the same snapshot.
        """
        ...

    async def rebuild_day(self, day: int) -> None:
        """Recompute every sum of a day from its entries, in one transaction. Only for days with all entries stored."""
        ...

    async def recount_meters(self) -> int:
        """Correct the held amounts to match the reservations, in one transaction; return how many differed."""
        ...

    async def prune_ledger(self, *, lines_before: int, spent_before: int, now: float, limit: int) -> int:
        """Delete at most `limit` entries of days before `lines_before`, users' names of those days, and old counters.

        Sums by day, key and model stay forever; sums of users are merged into `other`. Counters are deleted when no
        budget needs them: amounts of days before `spent_before`, and buckets that are full at `now`. Return how many
        rows were deleted: `limit` means that there can be more.
        """
        ...


class Runs(Protocol):
    """The runs whose cost is accounted for."""

    async def run(self, run_id: str) -> Run | None:
        """Find a run."""
        ...


class Announcer(Protocol):
    """Sends messages of the gateway's own to a team's webhook."""

    async def announce(self, warning: BudgetWarning, url: str, body: bytes) -> bool:
        """Record a warning and queue its message, signed like the team's other webhooks, in one step. Durable.

        If the warning is recorded already, change nothing. Return whether it was not.
        """
        ...


class KeyOwners(Protocol):
    """Whose limits a key's runs count against."""

    async def owner(self, team: str, key_id: str) -> Caller | None:
        """Return the caller of a key; `None` if the config has no such team."""
        ...
