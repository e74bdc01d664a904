"""What is counted of money and of limits. Amounts come in micro-dollars and are shown in dollars."""

from gateway.metrics import catalogue
from gateway.metrics.registry import Registry

_MICRO = 1_000_000


class MoneyMetrics(Registry):
    """The observer of the ledger, of budgets and of limits. Counters are of this process; the ledger is exact."""

    def spent(self, team: str, microusd: int) -> None:
        """Note what a run cost."""
        self.inc(catalogue.SPEND, team, by=microusd / _MICRO)

    def saved(self, team: str, reason: str, microusd: int) -> None:
        """Note what was saved."""
        self.inc(catalogue.SAVED, team, reason, by=microusd / _MICRO)

    def quota_refused(self, team: str, reason: str) -> None:
        """Note a create that a limit refused."""
        self.inc(catalogue.QUOTA_REFUSALS, team, reason)

    def charge_doubted(self, reason: str) -> None:
        """Note a charge that may be other than upstream's own."""
        self.inc(catalogue.CHARGES_IN_DOUBT, reason)

    def budget(self, team: str, window: str, *, limit: int | None, spent: int, reserved: int) -> None:
        """Note how a team's budget stands."""
        if limit is not None:
            self.set(catalogue.BUDGET_LIMIT, team, window, to=limit / _MICRO)
        else:
            self.forget(catalogue.BUDGET_LIMIT, team, window)
        self.set(catalogue.BUDGET_SPENT, team, window, to=spent / _MICRO)
        self.set(catalogue.BUDGET_RESERVED, team, window, to=reserved / _MICRO)

    def unsettled(self, count: int) -> None:
        """Note how many reservations are older than an hour."""
        self.set(catalogue.UNSETTLED, to=count)

    def reservation_stuck(self) -> None:
        """Note a reservation that was stuck."""
        self.inc(catalogue.STUCK)

    def ledger_drift(self, count: int) -> None:
        """Note how many sums differed from the ledger."""
        self.inc(catalogue.DRIFT, by=count)

    def concurrency_limited(self, team: str, limit: int | None) -> None:
        """Note how many predictions a team may have under way, if that is limited."""
        if limit is not None:
            self.set(catalogue.CONCURRENCY_LIMIT, team, to=limit)
        else:
            self.forget(catalogue.CONCURRENCY_LIMIT, team)

    def request_refused(self, of: str) -> None:
        """Note a request over a request rate; `of` says whose."""
        self.inc(catalogue.REQUEST_REFUSALS, of)

    def create_held(self, result: str, seconds: float) -> None:
        """Note a create that was held: `admitted`, `refused`, or `full` if there was no room to hold it."""
        self.inc(catalogue.CREATES_HELD, result)
        if result != "full":
            self.observe(catalogue.CREATE_HOLD, seconds=seconds)
