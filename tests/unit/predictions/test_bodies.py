"""Bodies of predictions in memory: bounded, and never those of another state."""

import json

import pytest
from msgspec.structs import replace

from gateway.domain.records import PredictionView, Source
from gateway.predictions.bodies import PredictionBodies
from tests.support.records import live, prediction

BASE = "https://gw.example/v1"


def view_of(number: int, size: int = 1000) -> PredictionView:
    document = json.dumps({"id": f"up{number}", "status": "processing", "logs": "x" * size}).encode()
    run = replace(live(f"run{number}"), document=document, upstream_id=f"up{number}")
    return PredictionView(prediction(f"p{number}", run_id=run.id, source=Source.HIT), run)


def test_memory_is_bounded_in_bytes() -> None:
    """Whatever is shown, however often, and if one body alone is too large."""
    bodies = PredictionBodies(b"s" * 32, None, 40_000)
    for size in (1000, 5000, 50_000):
        for number in range(50):
            view = view_of(number, size)
            shown = bodies.show(view, BASE, "predictions", is_kept=True)
            assert json.loads(shown)["logs"] == "x" * size
            assert bodies.show(view, BASE, "predictions", is_kept=True) == shown
            assert 0 <= bodies.kept_bytes <= 40_000
    bodies.resize(1000)
    assert bodies.kept_bytes <= 1000


def test_predictions_of_one_run_share_its_split_document() -> None:
    """A thousand hits take the memory of one document, and each shows its own id."""
    bodies = PredictionBodies(b"s" * 32, None, 1_000_000)
    view = view_of(1)
    bodies.show(view, BASE, "predictions", is_kept=False)
    size = bodies.kept_bytes
    for number in range(1000):
        other = PredictionView(replace(view.prediction, id=f"other{number}"), view.run)
        assert json.loads(bodies.show(other, BASE, "predictions", is_kept=False))["id"] == f"other{number}"
    assert bodies.kept_bytes == size
    bodies.clear()
    assert bodies.kept_bytes == 0


@pytest.mark.parametrize("size", [100, 1_100_000])
@pytest.mark.parametrize("source", [Source.HIT, Source.MISS])
async def test_finished_prediction_can_be_shown_as_starting(source: Source, size: int) -> None:
    """Small or large, shared or not, and with other answers from the same document."""
    bodies = PredictionBodies(b"s" * 32, None, 1_000_000)
    view = view_of(1, size)
    view = PredictionView(replace(view.prediction, source=source), view.run)
    before = await bodies.show_large(view, BASE, "predictions", is_kept=False)
    starting = json.loads(await bodies.show_as_starting(view, BASE, "predictions"))
    assert (starting["status"], json.loads(before)["status"]) == ("starting", "processing")
    assert starting["logs"] == json.loads(before)["logs"] == "x" * size
    assert await bodies.show_large(view, BASE, "predictions", is_kept=False) == before
