"""Metrics of money and limits. Amounts are passed in micro-dollars and exported in dollars."""

from gateway.metrics import catalogue
from gateway.metrics.registry import Registry

_MICRO = 1_000_000


class MoneyMetrics(Registry):
    """Observer of the ledger, budgets and limits. Counters are per process; the ledger is authoritative."""

    def spent(self, team: str, microusd: int) -> None:
        """Add the cost of a settled run."""
        self.counters[catalogue.SPEND][(team,)].value += microusd / _MICRO

    def saved(self, team: str, reason: str, microusd: int) -> None:
        """Add the savings of a hit or joined prediction."""
        self.counters[catalogue.SAVED][team, reason].value += microusd / _MICRO

    def quota_refused(self, team: str, reason: str) -> None:
        """Count a create refused by a limit; `reason` is the kind of limit."""
        self.counters[catalogue.QUOTA_REFUSALS][team, reason].value += 1

    def charge_doubted(self, reason: str) -> None:
        """Count a charge that may differ from upstream's, by doubt."""
        self.counters[catalogue.CHARGES_IN_DOUBT][(reason,)].value += 1

    def budget(self, team: str, window: str, *, limit: int | None, spent: int, reserved: int) -> None:
        """Set limit, spent and reserved amount of a team's budget, in micro-dollars."""
        if limit is not None:
            self.set(catalogue.BUDGET_LIMIT, team, window, to=limit / _MICRO)
        else:
            self.remove(catalogue.BUDGET_LIMIT, team, window)
        self.set(catalogue.BUDGET_SPENT, team, window, to=spent / _MICRO)
        self.set(catalogue.BUDGET_RESERVED, team, window, to=reserved / _MICRO)

    def unsettled(self, count: int) -> None:
        """Set the number of reservations older than an hour."""
        self.set(catalogue.UNSETTLED, to=count)

    def reservation_stuck(self) -> None:
        """Count a reservation released by the audit."""
        self.counters[catalogue.STUCK][()].value += 1

    def ledger_drift(self, count: int) -> None:
        """Count sums that differed from the ledger's entries."""
        self.counters[catalogue.DRIFT][()].value += count

    def tag_values(self, most: int) -> None:
        """Set the largest number of values of a cost tag."""
        self.set(catalogue.TAG_VALUES, to=most)

    def concurrency_limited(self, team: str, limit: int | None) -> None:
        """Set a team's limit of concurrent predictions; `None` removes it."""
        if limit is not None:
            self.set(catalogue.CONCURRENCY_LIMIT, team, to=limit)
        else:
            self.remove(catalogue.CONCURRENCY_LIMIT, team)

    def request_refused(self, of: str) -> None:
        """Count a request refused by a request rate; `of` is the subject of the limit."""
        self.counters[catalogue.REQUEST_REFUSALS][(of,)].value += 1

    def create_held(self, result: str, seconds: float) -> None:
        """Count a create queued for a request rate: `admitted` or `refused`; `full` or `too_long` if it was not."""
        self.counters[catalogue.CREATES_HELD][(result,)].value += 1
        if result in ("admitted", "refused"):
            self.histograms[catalogue.CREATE_HOLD][()].observe(seconds)
