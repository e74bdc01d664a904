"""Runs of the simulator can be priced: every end, every kind of price, without doubts."""

import json
from decimal import Decimal
from typing import Any

import pytest

from gateway.domain.records import Status
from gateway.money.rules.pricing import Charge, Price, PriceList, charge, on_hardware
from gateway.money.rules.usage import usage_of
from gateway.simulator import Fault
from tests.support.simulator_api import Api, find

T4 = on_hardware("gpu-t4")
PER_TOKEN = Price(per_input_token=Decimal("0.00000375"), per_output_token=Decimal("0.00001"))


def charged(price: Any, document: dict[str, Any], *, charge_failed: bool = True) -> Charge:
    usage = usage_of(json.dumps(document).encode(), Status(document["status"]))
    return charge(price, usage, charge_failed=charge_failed)


def exact(document: dict[str, Any], price: Price) -> int:
    """Compute the cost of the time of a run."""
    seconds = Decimal(repr(document["metrics"]["predict_time"]))
    return round(seconds * price.per_second * 1_000_000)


async def run(api: Api, ref: str, given: dict[str, Any]) -> dict[str, Any]:
    created = await api.create(ref, given)
    assert created.status == 201, created.raw
    return await api.finish(created.body["id"])


async def test_run_costs_its_time(api: Api) -> None:
    """By the price per second of the hardware."""
    done = await run(api, "acme/slow", {"duration": 2, "seed": 1})
    made = charged(T4, done)
    assert (made.microusd, made.doubts) == (exact(done, T4), ())
    assert made.microusd > 0


async def test_images_cost_per_image(api: Api) -> None:
    """An official model with a built-in price: $0.003 per image, for any duration."""
    price = PriceList().price_of("black-forest-labs/flux-schnell")
    done = await run(api, "black-forest-labs/flux-schnell", {"prompt": "x", "num_outputs": 3, "seed": 1})
    made = charged(price, done)
    assert (made.microusd, made.doubts) == (9000, ())


async def test_text_costs_its_tokens(api: Api) -> None:
    """By the model's count."""
    done = await run(api, "acme/official-storyteller", {"prompt": "a b c", "max_tokens": 9, "seed": 1})
    made = charged(PER_TOKEN, done)
    metrics = done["metrics"]
    assert made.microusd == round(
        metrics["input_token_count"] * Decimal("3.75") + metrics["output_token_count"] * Decimal(10)
    )
    assert made.doubts == ()


@pytest.mark.parametrize("charge_failed", [True, False])
async def test_failed_run_costs_its_time_if_the_config_says_so(api: Api, charge_failed: bool) -> None:
    """And its outputs so far."""
    done = await run(api, "acme/fail", {})
    assert done["status"] == "failed"
    assert charged(T4, done, charge_failed=charge_failed).microusd == (exact(done, T4) if charge_failed else 0)
    assert charged(Price(per_output=Decimal(1)), done).microusd == len(done["output"]) * 1_000_000
    assert charged(Price(per_run=Decimal(1)), done).microusd == 0


async def test_canceled_run_costs_its_time(api: Api) -> None:
    """In both formats."""
    created = (await api.create("acme/slow", {"duration": 60, "seed": 1})).body
    while (await api.get(f"/predictions/{created['id']}")).body["status"] != "processing":
        pass
    answered = (await api.post(f"/predictions/{created['id']}/cancel")).body
    done = await api.finish(created["id"])
    assert answered["status"] == done["status"] == "canceled"
    for document in (answered, done):
        made = charged(T4, document)
        assert (made.microusd, made.doubts) == (exact(done, T4), ())
        assert made.milliseconds > 0


async def test_aborted_run_is_free(start: Any) -> None:
    """Its deadline was before its start."""
    api = await start(speed=100)
    api.simulator.faults.set(Fault("cold_boot", seconds=60))
    created = await api.create("acme/slow", {"duration": 60, "seed": 1}, headers={"Cancel-After": "5s"})
    assert created.status == 201, created.raw
    done = await api.finish(created.body["id"])
    assert done["status"] == "aborted"
    for price in (T4, PER_TOKEN, Price(per_run=Decimal(1), per_output=Decimal(1))):
        made = charged(price, done)
        assert (made.microusd, made.milliseconds, made.doubts) == (0, 0, ())


async def test_training_costs_its_time(api: Api) -> None:
    """Trainings have metrics too."""
    model, version = find(api.simulator, "stability-ai/sdxl")
    await api.post("/models", {"owner": "acme", "name": "mine", "visibility": "private", "hardware": "gpu-t4"})
    created = await api.post(
        f"/models/{model.ref}/versions/{version.id}/trainings",
        {"destination": "acme/mine", "input": {"input_images": "https://example.com/x.zip"}},
    )
    assert created.status == 201, created.raw
    while (done := (await api.get(f"/trainings/{created.body['id']}")).body)["status"] not in ("succeeded", "failed"):
        pass
    made = charged(T4, done)
    assert (made.microusd, made.doubts) == (exact(done, T4), ())
