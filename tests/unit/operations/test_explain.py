"""Explanations: gathered from the parts that know."""

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.domain.records import Kind, Prediction, PredictionView, Run, RunState, Source, Status
from gateway.errors import NotFound
from gateway.money.pricing import Pricing
from gateway.money.rules.pricing import Price, PriceList, Rule
from gateway.operations.explain import ExplainService
from gateway.operations.rules.explain import Happening
from tests.support.callers import caller, issue
from tests.support.fakes import FakeStore

PRICES = PriceList(rules=(Rule("acme/*", Price(per_run=Decimal("0.5"))),))
RUN = Run(
    id="run_1", kind=Kind.PREDICTION, team="red", key_id="k", target="acme/toy", path="/predictions", request=b"",
    state=RunState.LIVE, status=Status.PROCESSING, upstream_id="p1", leader_id="p1", intended_at=5.0, document=b"{}",
)  # fmt: skip
PREDICTION = Prediction(
    id="p1", run_id="run_1", kind=Kind.PREDICTION, team="red", key_id="k", source=Source.BYPASS, created_at=6.0,
    ticket="t", ticket_expires_at=99.0, reason="no-seed",
)  # fmt: skip


class Predictions:
    """One prediction, of team red."""

    def __init__(self, view: PredictionView) -> None:
        self.view = view

    async def owned(self, who: Any, prediction_id: str) -> PredictionView:
        if prediction_id != self.view.prediction.id or not who.owns(self.view.prediction.team):
            raise NotFound
        return self.view

    async def prediction(self, prediction_id: str) -> PredictionView | None:
        return self.view if prediction_id == self.view.prediction.id else None


class Courier:
    """Knows of a delivery."""

    async def events(self, view: PredictionView) -> list[Happening]:
        return [Happening(7.0, "delivered", f"start, of {view.prediction.id}")]


def service(store: FakeStore, view: PredictionView, **config_keys: str) -> ExplainService:
    pricing = Pricing(PRICES, None)  # type: ignore[arg-type]  # nothing is counted
    predictions: Any = Predictions(view)
    courier = Courier()
    return ExplainService(predictions, predictions, store, store, pricing, config_keys=config_keys, sources=[courier])


async def test_other_services_add_their_events(store: FakeStore):
    """Webhook deliveries and output copies add to the timeline of this prediction."""
    answer: Any = await service(store, PredictionView(PREDICTION, RUN)).explain(caller(), "p1")
    assert [each["what"] for each in answer["timeline"]] == ["asked", "created", "delivered"]
    assert answer["price"]["basis"]["usd_per_run"] == "0.5"
    assert answer["price"]["charged_usd"] is None


async def test_key_is_named_from_config_or_store_or_left_out(store: FakeStore):
    _, key = issue(id="kept", name="the server")
    await store.add_key(key)
    for key_id, name in (("k", "of the config"), ("kept", "the server"), ("gone", None)):
        view = PredictionView(replace(PREDICTION, key_id=key_id), RUN)
        answer: Any = await service(store, view, k="of the config").explain(caller(), "p1")
        assert answer["key"] == {"id": key_id, "name": name}


async def test_foreign_prediction_is_not_found(store: FakeStore):
    with pytest.raises(NotFound):
        await service(store, PredictionView(replace(PREDICTION, team="blue"), RUN)).explain(caller(), "p1")
