"""The store that `bench.growth` fills is one that the gateway could have written."""

import time
from pathlib import Path

from bench.growth import fill, prediction_id
from gateway.domain.records import Kind, Status
from gateway.store.sqlite import SQLiteStore

COUNT = 59
CACHED = 2
"""Those of the last day of 29."""


async def test_inserted_predictions_are_shown_listed_and_cached(tmp_path: Path):
    await fill(tmp_path / "gateway.db", COUNT)
    store = SQLiteStore(tmp_path / "gateway.db")
    await store.open()
    try:
        page = await store.predictions(team="bench", kind=Kind.PREDICTION, limit=100)
        stats = await store.cache_stats(time.time())
        oldest, newest = [await store.prediction(prediction_id(number)) for number in (0, COUNT - 1)]
    finally:
        await store.close()
    assert [view.prediction.id for view in page.items] == [prediction_id(n) for n in reversed(range(COUNT))]
    assert stats.entries == CACHED
    assert oldest is not None
    assert newest is not None
    assert (oldest.run.data_removed, newest.run.data_removed) == (True, False)
    assert {view.run.status for view in page.items} == {Status.SUCCEEDED}
