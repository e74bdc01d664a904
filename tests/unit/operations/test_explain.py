"""Explanations: gathered from the parts that know."""

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.domain.records import Key, Kind, Prediction, PredictionView, Run, RunState, Source, Status
from gateway.errors import NotFound
from gateway.money.pricing import Pricing
from gateway.money.rules.pricing import Price, PriceList, Rule
from gateway.operations.explain import ExplainService
from gateway.webhooks.rules.deliveries import Delivery, DeliveryKind
from tests.support.audit import BY_TEST
from tests.support.callers import caller, issue
from tests.support.fakes import FakeStore
from tests.support.live import access_of, money

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

    async def prediction(self, prediction_id: str, *, most_bytes: int | None = None) -> PredictionView | None:
        return self.view if prediction_id == self.view.prediction.id else None


class Webhooks:
    """Has one webhook that waits."""

    async def deliveries_of(self, prediction_id: str) -> list[Delivery]:
        url = "https://hooks.example/x"
        return [
            Delivery(
                id="d",
                kind=DeliveryKind.PREDICTION,
                team="red",
                url=url,
                receiver=url,
                prediction_id=prediction_id,
                created_at=7.0,
            )
        ]


def service(store: FakeStore, view: PredictionView, *config_keys: Key) -> ExplainService:
    pricing = Pricing(money(PRICES), None)  # type: ignore[arg-type]  # nothing is counted
    predictions: Any = Predictions(view)
    webhooks: Any = Webhooks()
    return ExplainService(predictions, predictions, store, store, pricing, access_of(*config_keys), webhooks)


async def test_other_services_add_their_events(store: FakeStore):
    """Webhook deliveries and output copies add to the timeline of this prediction."""
    with_webhook = replace(PREDICTION, webhook="https://hooks.example/x")
    answer: Any = await service(store, PredictionView(PREDICTION, RUN)).explain(caller(), "p1")
    assert [each["what"] for each in answer["timeline"]] == ["asked", "created"]
    answer = await service(store, PredictionView(with_webhook, RUN)).explain(caller(), "p1")
    assert [each["what"] for each in answer["timeline"]] == ["asked", "created", "webhook queued"]
    assert answer["price"]["basis"]["usd_per_run"] == "0.5"
    assert answer["price"]["charged_usd"] is None


async def test_key_is_named_from_config_or_store_or_left_out(store: FakeStore):
    _, key = issue(id="kept", name="the server")
    await store.add_key(key, actor=BY_TEST)
    of_config = replace(issue()[1], id="k", name="of the config")
    for key_id, name in (("k", "of the config"), ("kept", "the server"), ("gone", None)):
        view = PredictionView(replace(PREDICTION, key_id=key_id), RUN)
        answer: Any = await service(store, view, of_config).explain(caller(), "p1")
        assert answer["key"] == {"id": key_id, "name": name}


async def test_foreign_prediction_is_not_found(store: FakeStore):
    with pytest.raises(NotFound):
        await service(store, PredictionView(replace(PREDICTION, team="blue"), RUN)).explain(caller(), "p1")
