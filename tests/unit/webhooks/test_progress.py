"""Webhook events that callers of running predictions have got."""

from msgspec.structs import replace

from gateway.domain.records import PredictionView
from gateway.webhooks.progress import SMALL_DOCUMENT, ProgressQueue
from gateway.webhooks.rules.events import Event
from tests.support.prediction_views import view

ALL = ("start", "output", "logs", "completed")


def running(output: str | None = None, prediction_id: str = "p" * 26) -> PredictionView:
    fields = {"status": "processing", "output": output}
    return view(fields, id=prediction_id, webhook="https://x.example/", webhook_events_filter=ALL)


def test_newest_progress_replaces_an_unsent_one():
    """A message that has not gone out gives way to the next."""
    lines = ProgressQueue()
    assert lines.begin(running(), 0.0)
    assert [each.prediction.id for each in lines.change(running("a").run, 1.0)] == ["p" * 26]
    newest = running("b").run
    assert list(lines.change(newest, 2.0))
    assert lines.pending == 1
    assert [lines.take("p" * 26) for _ in range(3)][2] is None
    assert not lines.has_more("p" * 26)
    assert list(lines.change(newest, 9.0)) == []


def test_progress_is_taken_in_order():
    """The start first, then the newest."""
    lines = ProgressQueue()
    lines.begin(running("a"), 0.0)
    newest = running("b").run
    assert list(lines.change(newest, 1.0))
    first, second = lines.take("p" * 26), lines.take("p" * 26)
    assert first is not None
    assert second is not None
    assert (first[0], second[0]) == (Event.START, Event.OUTPUT)
    assert second[1].run is newest


def test_joined_caller_gets_a_start_and_the_current_state():
    """For its caller the prediction starts when it joins."""
    lines = ProgressQueue()
    lines.begin(running("a", "q" * 26), 0.0)
    assert lines.take("q" * 26) == (Event.START, running("a", "q" * 26))
    assert lines.take("q" * 26) == (Event.OUTPUT, running("a", "q" * 26))


def test_cancelled_caller_gets_nothing_more():
    """Not even what was throttled."""
    lines = ProgressQueue()
    lines.begin(running("a"), 0.0)
    list(lines.change(running("b").run, 0.1))
    lines.silence("p" * 26, 0.2)
    assert list(lines.due(9.0)) == []
    assert list(lines.change(running("c").run, 9.0)) == []
    assert lines.take("p" * 26) is None
    ending = lines.end("p" * 26)
    assert ending is not None
    assert ending.sent.started
    assert ending.unsent == ()


def test_pending_progress_is_known_at_the_end():
    """It is sent before the end."""
    lines = ProgressQueue()
    lines.begin(running("a"), 0.0)
    lines.note_end("run_1", 1.0)
    ending = lines.end("p" * 26)
    assert ending is not None
    assert ending.unsent == (Event.START, Event.OUTPUT)
    assert lines.end("p" * 26) is None
    assert lines.pending == 0


def test_oldest_progress_of_a_team_is_dropped_at_the_limit():
    """It is not sent; `start` and the end still are. What other teams wait for stays."""
    lines = ProgressQueue()
    for n in range(3):
        lines.begin(running("a", f"{n}" * 26), 0.0)
    blue = running("a", "b" * 26)
    lines.begin(PredictionView(replace(blue.prediction, team="blue"), blue.run), 0.0)
    team = running("a").prediction.team
    assert lines.pending_of(team) == 3
    assert lines.drop_oldest(team, 2) == 2
    assert lines.pending == 4
    for name, events in (
        ("0" * 26, [Event.START]),
        ("2" * 26, [Event.START, Event.OUTPUT]),
        ("b" * 26, [Event.START, Event.OUTPUT]),
    ):
        sent = []
        while (taken := lines.take(name)) is not None:
            sent.append(taken[0])
        assert sent == events
    assert lines.drop_oldest(team, 9) == 0
    lines.take("1" * 26)
    assert lines.pending == 0


def test_large_documents_are_not_kept():
    """A receiver that does not answer does not fill the memory with inputs of megabytes."""
    lines = ProgressQueue()
    lines.begin(running("a" * SMALL_DOCUMENT), 0.0)
    assert list(lines.change(running("b" * SMALL_DOCUMENT).run, 0.1)) == []
    # Throttled, and due later by what is known of it.
    assert [each.run.document for each in lines.due(9.0)] == [b""]
    start, output = lines.take("p" * 26), lines.take("p" * 26)
    assert start is not None
    assert output is not None
    assert [(event, view.run.document) for event, view in (start, output)] == [(Event.START, b""), (Event.OUTPUT, b"")]
    assert list(lines.due(99.0)) == []


def test_abandoned_progress_is_forgotten():
    """Nothing is kept forever."""
    lines = ProgressQueue()
    lines.begin(running(), 0.0)
    lines.note_end("run_1", 5.0)
    lines.forget_ended(5.0)
    assert lines.end("p" * 26) is not None
    lines.begin(running(), 0.0)
    lines.note_end("run_1", 5.0)
    lines.forget_ended(6.0)
    assert lines.end("p" * 26) is None


def test_unreadable_document_sends_nothing():
    """It affects no other prediction of the run."""
    lines = ProgressQueue()
    broken = running("a")
    assert not lines.begin(PredictionView(broken.prediction, replace(broken.run, document=b"{")), 0.0)
    assert list(lines.change(running("a").run, 1.0))


def test_prediction_that_is_followed_is_not_resumed():
    """Otherwise what it has not sent yet would count as sent, when runs of another node are taken over."""
    lines = ProgressQueue()
    lines.begin(running("a"), 0.0)
    lines.resume(running("a"))
    assert lines.take("p" * 26) == (Event.START, running("a"))


def test_runs_of_other_nodes_have_no_progress_here():
    """Their new owners send it."""
    lines = ProgressQueue()
    lines.begin(running("a"), 0.0)
    lines.drop()
    assert (lines.pending, lines.take("p" * 26)) == (0, None)
    assert list(lines.change(running("b").run, 1.0)) == []
    lines.resume(running("b"))
    assert list(lines.change(running("c").run, 2.0))
