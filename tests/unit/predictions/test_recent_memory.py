"""What predictions in memory are counted as, beside what they take."""

import gc
import tracemalloc
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from gateway.domain.records import PredictionView
from gateway.predictions.queries import size_of_view
from gateway.predictions.recent import RecentPredictions
from gateway.store.sql.rows import PREDICTIONS, RUNS, view
from tests.support.records import live, prediction

NUMBER = 500


@pytest.fixture
def traced() -> Iterator[None]:
    gc.collect()
    tracemalloc.start()
    yield
    tracemalloc.stop()


def fresh(number: int) -> PredictionView:
    """Return a view as the store returns it: with texts of its own."""
    version = "a" * 63 + str(number % 10)
    run = replace(
        live(f"run{number:023}"),
        fingerprint=f"{number:064}",
        target=f"black-forest-labs/flux-schnell:{version}",
        document=b'{"input":"%0600d"}' % number,
        stream_url=f"https://stream.replicate.com/v1/files/{number:052}",
    )
    made = replace(prediction(f"{number:026}", run.id), user=f"user-{number}")
    return view((*PREDICTIONS.row(made), *RUNS.row(run), 0))


def test_small_predictions_take_no_more_than_they_are_counted_as(traced: None) -> None:
    recent = RecentPredictions(1e9, size_of_view)
    before, _ = tracemalloc.get_traced_memory()
    for number in range(NUMBER):
        made = fresh(number)
        recent[made.prediction.id] = made
    after, _ = tracemalloc.get_traced_memory()
    taken = (after - before) / NUMBER
    counted = recent.currsize / NUMBER
    assert 0.6 * counted < taken < 1.05 * counted
