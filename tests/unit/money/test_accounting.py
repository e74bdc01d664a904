"""Accounting for ended runs: what is learned and counted, from the event alone."""

from typing import Any

import pytest
from msgspec.structs import replace

from gateway.domain.ledger import Settlement
from gateway.domain.records import Source, Status
from gateway.domain.run_end import SharedBy
from gateway.money.accounting import Accounting
from gateway.money.pricing import Pricing
from gateway.money.rules.pricing import PriceList
from tests.support.records import NOW, ended, prediction, run_ended

COST = Settlement(at=NOW, microusd=70, milliseconds=900, target="acme/toy", reason="succeeded; no-times")


class Counted:
    """What was counted, in order. `trouble` is raised by the first count of savings while it is set."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.trouble: Exception | None = None

    def spent(self, team: str, microusd: int) -> None:
        self.calls.append(("spent", team, microusd))

    def saved(self, team: str, reason: str, microusd: int) -> None:
        self.calls.append(("saved", team, reason, microusd))

    def charge_doubted(self, reason: str) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.calls.append(("doubted", reason))

    def touched(self, team: str, key_id: str | None = None, user: str | None = None, tagged: str = "") -> None:
        self.calls.append(("touched", team, key_id, user, tagged))


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def pricing(counted: Any) -> Pricing:
    return Pricing(PriceList(), counted)


@pytest.fixture
def accounting(counted: Any, pricing: Pricing) -> Accounting:
    return Accounting(pricing, counted, counted)


async def test_end_counts_cost_savings_and_doubts_once_and_checks_budgets(accounting, counted, pricing):
    """The team that started the run pays; each prediction that joined saved as much, for its own team."""
    joiners = [
        prediction("p2", source=Source.JOINED),
        prediction("p3", source=Source.JOINED, canceled_at=NOW),
        prediction("p4", source=Source.JOINED, team="blue"),
    ]
    accounting.on_run_ended(run_ended(ended(), prediction(), *joiners, settlement=COST))
    assert counted.calls == [
        ("touched", "red", "k1", None, ""),
        ("doubted", "no-times"),
        ("spent", "red", 70),
        ("saved", "red", "joined", 140),
        ("saved", "blue", "joined", 70),
    ]
    assert pricing.learned == 1


async def test_savings_of_many_predictions_are_exact(accounting, counted):
    """The event counts all of them, although it lists only some."""
    crowd = SharedBy(team="red", source=Source.JOINED, predictions=25_000, waiting=0, webhooks=0)
    accounting.on_run_ended(replace(run_ended(ended(), settlement=COST), shared_by=(crowd,), prediction_ids=()))
    assert counted.calls[-1] == ("saved", "red", "joined", 25_000 * 70)


async def test_retry_after_a_failure_counts_once(accounting, counted, pricing):
    """No dollar is counted twice."""
    end = run_ended(ended(), prediction(), settlement=COST)
    counted.trouble = RuntimeError("a defect")
    with pytest.raises(RuntimeError):
        accounting.on_run_ended(end)
    counted.trouble = None
    accounting.on_run_ended(end)
    assert [call for call in counted.calls if call[0] == "spent"] == [("spent", "red", 70)]
    assert len(dict(pricing._recent)) == 1
    assert len(list(pricing._recent)) == 1, "one run is one sample"


async def test_cost_of_a_cancelled_run_is_spent_but_not_learned(accounting, counted, pricing):
    """It shows how patient its caller was, not what other runs will cost."""
    accounting.on_run_ended(run_ended(ended(status=Status.CANCELED), prediction(), settlement=COST))
    assert ("spent", "red", 70) in counted.calls
    assert pricing.learned == 0
