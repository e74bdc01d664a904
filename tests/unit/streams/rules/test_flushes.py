"""Which logs are written at a flush."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.streams.rules.flushes import MOST_OTHERS, flush, most_merges

MARKS = st.lists(st.tuples(st.booleans(), st.floats(0.0, 2.0)), max_size=3 * MOST_OTHERS)


@given(MARKS, st.floats(0.0, 2.0))
@settings(max_examples=100, deadline=None)
def test_watched_logs_are_always_written_and_others_in_turn(marks: list[tuple[bool, float]], now: float):
    """Only those whose time has come, those that have waited longest first, and a bounded number."""
    waiting = {
        f"{number}": (watched, at) for number, (watched, at) in enumerate(sorted(marks, key=lambda mark: mark[1]))
    }
    found = flush({run_id: at for run_id, (_, at) in waiting.items()}, lambda run_id: waiting[run_id][0], now)
    due = [run_id for run_id, (watched, at) in waiting.items() if not watched and at <= now]
    assert found.watched == [run_id for run_id, (watched, _) in waiting.items() if watched]
    assert found.others == due[:MOST_OTHERS]
    assert found.has_more == (len(due) > MOST_OTHERS)


@given(st.integers(1, 10_000))
def test_more_logs_may_be_merged_than_come_to_it(count: int):
    """Each of them after 25 parts."""
    assert count / 25 < most_merges(count) <= max(10, count / 10)
