"""What the end of a run means for money beside its settlement, which is part of the store's step."""

from gateway.domain.ports.observers import LimitObserver
from gateway.domain.run_end import RunEnded
from gateway.money.budget_alerts import Budgets
from gateway.money.pricing import Pricing


class Accounting:
    """End-of-run listener: learns the cost, checks budget alerts, counts spend and savings."""

    def __init__(self, pricing: Pricing, budgets: Budgets, observer: LimitObserver) -> None:
        self._pricing = pricing
        self._budgets = budgets
        self._observer = observer

    def on_run_ended(self, ended: RunEnded) -> None:
        """Account for a run. Repeatable until it succeeds: what is counted comes last."""
        run, settlement = ended.run, ended.settlement
        self._budgets.touched(run.team, run.key_id, ended.user, ended.tags)
        self._pricing.note(run, settlement)
        for joined in ended.joined:
            self._observer.saved(joined.team, joined.source, settlement.microusd * joined.predictions)
