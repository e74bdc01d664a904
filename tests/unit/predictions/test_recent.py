"""Predictions in memory: the least recently used is dropped first, and a run is found without a search."""

from msgspec.structs import replace

from gateway.domain.records import PredictionView, Run
from gateway.predictions.recent import RecentPredictions
from tests.support.records import live, prediction


def view_of(prediction_id: str, run: Run) -> PredictionView:
    return PredictionView(prediction(prediction_id, run.id), run)


def recent_of(*views: PredictionView, room: int) -> RecentPredictions:
    made = RecentPredictions(room, lambda view: len(view.run.document))
    for view in views:
        made[view.prediction.id] = view
    return made


def run_of(run_id: str, document: bytes = b"{}") -> Run:
    return replace(live(run_id), document=document)


def test_run_is_replaced_in_its_predictions_only() -> None:
    first, other = run_of("run1"), run_of("run2")
    recent = recent_of(view_of("a", first), view_of("b", other), view_of("c", first), room=100)
    newer = replace(first, ended_at=5.0)
    recent.replace_run(newer)
    assert [recent[each].run for each in "abc"] == [newer, other, newer]


def test_replaced_run_does_not_count_as_a_use() -> None:
    """What callers have not read for longest goes first, whatever files were copied meanwhile."""
    recent = recent_of(*(view_of(each, run_of(each)) for each in "abc"), room=6)
    recent.replace_run(replace(run_of("a"), ended_at=5.0))
    recent["d"] = view_of("d", run_of("d"))
    assert set(recent) == {"b", "c", "d"}


def test_replaced_run_that_needs_more_room_is_dropped() -> None:
    recent = recent_of(view_of("a", run_of("a")), view_of("b", run_of("b")), room=4)
    recent.replace_run(run_of("a", b"longer"))
    assert (set(recent), recent.currsize) == ({"b"}, 2)
    recent.replace_run(run_of("a"))


def test_dropped_predictions_leave_nothing_behind() -> None:
    run = run_of("run1")
    recent = recent_of(*(view_of(str(each), run) for each in range(10)), room=4)
    recent.clear()
    recent.replace_run(run)
    assert (len(recent), recent.currsize) == (0, 0)


def test_run_is_dropped_with_its_predictions() -> None:
    first, other = run_of("run1"), run_of("run2")
    recent = recent_of(view_of("a", first), view_of("b", other), view_of("c", first), room=100)
    recent.drop_run("run1")
    recent.drop_run("unknown")
    assert list(recent) == ["b"]
    assert recent.currsize == 2
