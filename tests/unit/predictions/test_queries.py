"""Predictions as their callers see them: while they wait, at the end of their run, and when they are cancelled."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from gateway.domain import tickets
from gateway.domain.records import LARGE_DOCUMENT, Cancellation, PredictionView, Run, RunState, Source, Status
from gateway.domain.run_end import SharedBy
from gateway.domain.scopes import Scope
from gateway.domain.teams import Caller, Team
from gateway.errors import NotFound, StoreUnavailable
from gateway.predictions.events import Listener, PredictionEvents
from gateway.predictions.queries import PredictionService
from gateway.predictions.settings import PredictionSettings
from gateway.predictions.tracker import Tracker
from gateway.runtime.live import LiveSettings
from tests.support.clock import ManualClock, settle
from tests.support.fakes import AWAY, FakeObserver, FakeStore, FakeUpstream, free
from tests.support.records import NOW, live, prediction, run_ended

SECRET = b"s" * 32
CALLER = Caller(team=Team(name="red", scopes=frozenset(Scope)), key_id="k1", scopes=frozenset(Scope), models=(("*",),))


@pytest.fixture
def events(clock: ManualClock, observer: FakeObserver) -> PredictionEvents:
    return PredictionEvents(clock, observer)


@pytest.fixture
async def tracker(
    store: FakeStore, upstream: FakeUpstream, clock: ManualClock, observer: FakeObserver, events: PredictionEvents
) -> AsyncIterator[Tracker]:
    made = Tracker(
        store,
        upstream,
        clock,
        events,
        observer,
        requests_per_minute=lambda: 3000.0,
        keep_until=lambda *_: None,
        settlement_of=free,
    )
    yield made
    await made.close()


@pytest.fixture
def predictions(
    store: FakeStore, tracker: Tracker, clock: ManualClock, observer: FakeObserver, events: PredictionEvents
) -> PredictionService:
    settings = LiveSettings(PredictionSettings(adopt_wait_seconds=1.0, ticket_ttl_seconds=60.0, memory_bytes=1_000_000))
    return PredictionService(store, tracker, clock, events, observer, ticket_secret=SECRET, settings=settings)


@pytest.fixture
def run(store: FakeStore) -> Run:
    made = store.runs["run1"] = live(fingerprint="F")
    store.kept["p1"] = prediction()
    store.kept["p2"] = prediction("p2", source=Source.JOINED)
    return made


def over(run: Run) -> Run:
    return replace(run, state=RunState.ENDED, status=Status.SUCCEEDED, document=b"{}", ended_at=NOW + 9)


async def test_poll_after_the_end_is_answered_from_memory(predictions, store, run):
    """The event lists the predictions that ended, so none is read from the store again."""
    for prediction_id in ("p1", "p2"):
        await predictions.get(CALLER, prediction_id)
    store.calls.clear()
    end = run_ended(over(run), *store.kept.values())
    predictions.on_run_ended(end)
    for prediction_id in ("p1", "p2"):
        view = await predictions.get(CALLER, prediction_id)
        assert view == PredictionView(store.kept[prediction_id], end.run)
    assert store.calls == []


async def test_large_document_is_read_only_when_it_is_wanted(predictions, store, run):
    """A poll, a cancel and a link to a copy need none: requests for large predictions wait for room first."""
    store.runs["run1"] = replace(run, document=b"x" * (LARGE_DOCUMENT + 1))
    size = len(store.runs["run1"].document) + len(run.request)
    for view in (
        await predictions.get(CALLER, "p1"),
        await predictions.owned(CALLER, "p1"),
        await predictions.find("p1"),
    ):
        assert (view.run.document, view.left_out) == (b"", size)
    assert predictions.recent_bytes == 0
    whole = await predictions.whole(view)
    assert whole == PredictionView(store.kept["p1"], store.runs["run1"])
    with pytest.raises(NotFound):
        await predictions.whole(PredictionView(prediction("p9"), whole.run))


async def test_cancel_of_a_run_with_a_large_document_keeps_it_for_those_who_poll(predictions, store, run, tracker):
    """The step leaves the document in the store; what is in memory stays."""
    large = store.runs["run1"] = replace(run, document=b"x" * (LARGE_DOCUMENT + 1))
    tracked = tracker.follow(large)
    tracker.cancel_asked(replace(large, document=b"", request=b"", cancel_asked_at=NOW))
    assert (tracked.run.document, tracked.run.cancel_asked_at) == (large.document, NOW)
    assert (await predictions.get(CALLER, "p1")).run.document == large.document
    other = tracker.follow(live("run2"))
    tracker.cancel_asked(replace(live("run3"), document=b"", cancel_asked_at=NOW))
    unknown = tracker.tracked("run3")
    assert unknown is not None
    assert (other.is_whole, unknown.is_whole) == (True, False)


async def test_shortened_prediction_has_no_input(predictions, store, run):
    """A create without room for its response is answered with this."""
    document = b'{"id":"x","status":"processing","input":{"a":"%b"},"urls":{"get":"u"}}' % (b"x" * LARGE_DOCUMENT)
    store.runs["run1"] = replace(run, document=document)
    view = await predictions.get(CALLER, "p1")
    shown = json.loads(await predictions.show_shortened(view, "http://gateway.test/v1", "predictions"))
    assert (shown["id"], shown["status"], shown["input"], shown["output"]) == ("p1", "starting", {}, None)
    assert shown["urls"] == {"get": "http://gateway.test/v1/predictions/p1"}
    assert "data_removed" not in shown


async def test_end_caches_only_predictions_that_were_polled(predictions, store, run):
    """Many predictions that are never polled evict nothing from memory."""
    predictions.on_run_ended(run_ended(over(run), *store.kept.values()))
    store.runs["run1"] = over(run)
    await predictions.get(CALLER, "p1")
    assert store.calls == ["prediction"]


async def test_cancelled_prediction_stays_cancelled_at_the_end(predictions, store, run, observer):
    """It ended for its caller before; the run's end does not count it again."""
    await predictions.get(CALLER, "p1")
    await predictions.cancel(CALLER, "p1")
    assert observer.finished == [("red", Status.CANCELED)]
    predictions.on_run_ended(run_ended(over(run), *store.kept.values()))
    view = await predictions.get(CALLER, "p1")
    assert view.prediction.canceled_at is not None
    assert predictions.canceled_at(view) == view.prediction.canceled_at
    assert observer.finished == [("red", Status.CANCELED), ("red", Status.SUCCEEDED)], "p2 had waited"


async def test_ends_of_many_predictions_are_counted_exactly(predictions, run, observer):
    """By team, although the event lists only some of them."""
    groups = [
        SharedBy(team="red", source=Source.MISS, predictions=1, waiting=0, webhooks=0),
        SharedBy(team="red", source=Source.JOINED, predictions=300, waiting=200, webhooks=0),
        SharedBy(team="blue", source=Source.JOINED, predictions=7, waiting=7, webhooks=7),
    ]
    predictions.on_run_ended(replace(run_ended(over(run)), shared_by=tuple(groups)))
    assert observer.finished == [("red", Status.SUCCEEDED)] * 200 + [("blue", Status.SUCCEEDED)] * 7


async def test_cancel_is_published_once_with_the_current_prediction(predictions, events, run):
    """Streams and webhooks of that caller end; a second cancel changes nothing."""
    heard: list[PredictionView] = []
    events.add_canceled_listener(Listener.STREAMS, heard.append)
    view = await predictions.cancel(CALLER, "p2")
    await predictions.cancel(CALLER, "p2")
    assert heard == [view]
    assert view.prediction.canceled_at is not None


async def test_deadline_after_the_end_is_no_cancel(predictions, store, run, observer):
    """Every prediction with a deadline would count as cancelled too late."""
    store.runs[run.id] = over(run)
    await predictions.expire("p1")
    assert observer.of("canceled") == []
    await predictions.cancel(CALLER, "p1")
    assert observer.of("canceled") == ["over"]


class LosesAnswers(FakeStore):
    """Does what it is asked, and does not say so for some time."""

    lost = 2

    async def cancel(
        self, prediction_id: str, at: float, *, by_deadline: bool = False, is_repeated: bool = False
    ) -> Cancellation | None:
        found = await super().cancel(prediction_id, at, by_deadline=by_deadline, is_repeated=is_repeated)
        self.lost -= 1
        if self.lost >= 0:
            raise AWAY
        return found


@pytest.fixture
def store(request: pytest.FixtureRequest) -> FakeStore:
    return getattr(request, "param", FakeStore)()


@pytest.mark.parametrize("store", [LosesAnswers], indirect=True)
async def test_cancel_whose_answer_was_lost_still_takes_effect(predictions, events, run, upstream, clock, tracker):
    """The caller gets an error. Upstream is asked all the same, and listeners are called, once."""
    heard: list[PredictionView] = []
    events.add_canceled_listener(Listener.STREAMS, heard.append)
    for prediction_id in ("p2", "p1"):
        with pytest.raises(StoreUnavailable):
            await predictions.cancel(CALLER, prediction_id)
    assert heard == []
    for _ in range(3):
        await clock.advance(1.0)
    assert sorted(view.prediction.id for view in heard) == ["p1", "p2"]
    assert [call.path for call in upstream.calls if call.path.endswith("/cancel")] == ["/predictions/uprun1/cancel"]
    await predictions.close()


async def test_failing_listener_does_not_fail_the_cancel(predictions, events, run, observer):
    """The caller's cancel is recorded, and the response sent."""

    def fail(_: PredictionView) -> None:
        raise RuntimeError("a defect")

    events.add_canceled_listener(Listener.STREAMS, fail)
    view = await predictions.cancel(CALLER, "p1")
    assert view.prediction.canceled_at is not None
    assert observer.of("listener_failed") == ["streams"]
    assert observer.of("canceled") == ["left"]


async def test_wait_for_an_ended_run_reads_nothing(predictions, store, run):
    """A hit is answered from the step that recorded it."""
    view = PredictionView(store.kept["p1"], over(run))
    assert await predictions.wait(view, 60.0) is view
    assert store.calls == []


async def test_wait_returns_the_end_without_a_read(predictions, tracker, store, run):
    """The tracker has the run's end; the prediction was not cancelled."""
    tracked = tracker.follow(run)
    waiting = asyncio.create_task(predictions.wait(PredictionView(store.kept["p1"], run), 60.0))
    await settle()
    tracked.set_run(over(run))
    tracked.wake()
    assert await waiting == PredictionView(store.kept["p1"], over(run))
    assert "prediction" not in store.calls


async def test_cancel_ends_the_wait_for_its_own_prediction_only(predictions, tracker, store, run):
    """Both share the run; one caller cancels."""
    tracker.follow(run)
    views = [PredictionView(store.kept[name], run) for name in ("p1", "p2")]
    first, second = (asyncio.create_task(predictions.wait(view, 60.0)) for view in views)
    await settle()
    await predictions.cancel(CALLER, "p1")
    assert (await first).prediction.canceled_at is not None
    assert not second.done()
    await predictions.drain()
    assert (await second).prediction.canceled_at is None


async def test_stream_ticket_opens_the_prediction_whose_id_it_contains(
    predictions: PredictionService, store: FakeStore
) -> None:
    """The store looks for the id. Another gateway's ticket for the same id opens nothing."""
    name = "a1" * 13
    store.runs["run1"] = live()
    store.kept[name] = made = prediction(name, ticket="", ticket_origins=None)
    view = PredictionView(made, store.runs["run1"])
    assert await predictions.by_ticket(tickets.ticket(SECRET, name), None) == view
    assert "prediction_by_ticket" not in store.calls
    with pytest.raises(NotFound):
        await predictions.by_ticket(tickets.ticket(b"x" * 32, name), None)


async def test_stream_ticket_of_an_earlier_version_still_opens(
    predictions: PredictionService, store: FakeStore
) -> None:
    """Pages keep the link that they were given before the upgrade, and may get the new one beside it."""
    name, older = "a1" * 13, "q" * 52
    store.runs["run1"] = live()
    store.kept[name] = made = prediction(name, ticket=tickets.fingerprint(older), ticket_origins=None)
    view = PredictionView(made, store.runs["run1"])
    assert await predictions.by_ticket(older, None) == view
    assert await predictions.by_ticket(tickets.ticket(SECRET, name), None) == view


async def test_answer_to_a_create_is_not_kept_and_a_polled_body_is(predictions, store, run):
    """Many hits are never polled. What they share is kept once, and both are dropped with removed data."""
    shared = PredictionView(store.kept["p2"], over(run))
    first = predictions.show(shared, "https://gw/v1", "predictions")
    one_document = predictions.shown_bytes
    other = PredictionView(prediction("p3", source=Source.HIT), replace(shared.run, document=b"{" + b"}"))
    assert predictions.show(other, "https://gw/v1", "predictions") != first
    assert predictions.shown_bytes == one_document > 0
    store.runs["run1"] = shared.run
    view = await predictions.get(CALLER, "p2")
    polled = predictions.show(view, "https://gw/v1", "predictions")
    assert polled == first
    assert predictions.show(view, "https://gw/v1", "predictions") is polled
    assert predictions.shown_bytes > one_document
    predictions.forget_ended()
    assert predictions.shown_bytes == 0


async def test_new_document_is_shown_whatever_was_split_before(predictions, store, run):
    """A run's progress is seen at the next poll, by all who share it."""
    for document in (b'{"logs":"a"}', b'{"logs":"b"}'):
        for prediction_id in ("p1", "p2"):
            view = PredictionView(store.kept[prediction_id], replace(run, document=document))
            assert document[1:-1] in predictions.show(view, "https://gw/v1", "predictions")
