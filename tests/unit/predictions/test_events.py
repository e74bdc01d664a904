"""Events of predictions and runs: the order of listeners, their isolation, and retries."""

from collections.abc import AsyncIterator, Callable

import pytest

from gateway.domain.records import PredictionView
from gateway.domain.run_end import RunEnded
from gateway.errors import StoreUnavailable
from gateway.predictions import events as module
from gateway.predictions.events import MAX_RETRYING, RETRY_SECONDS, Listener, PredictionEvents
from tests.support.clock import ManualClock
from tests.support.fakes import FakeObserver
from tests.support.records import ended, live, prediction, run_ended

END = run_ended(ended(), prediction())
FAILURES = [StoreUnavailable("The store did not answer."), RuntimeError("a defect")]


class Flaky:
    """A listener that fails as often as the test sets, then succeeds."""

    def __init__(self, failures: int, error: Exception = FAILURES[1]) -> None:
        self.left = failures
        self.error = error
        self.calls = 0
        self.done: list[RunEnded] = []

    def __call__(self, end: RunEnded) -> None:
        self.calls += 1
        if self.left:
            self.left -= 1
            # A new one each time: an instance that is raised again keeps every earlier traceback.
            raise type(self.error)(*self.error.args)
        self.done.append(end)


@pytest.fixture
async def events(clock: ManualClock, observer: FakeObserver) -> AsyncIterator[PredictionEvents]:
    made = PredictionEvents(clock, observer)
    yield made
    await made.close()


def fail(_: object) -> None:
    raise RuntimeError("a defect")


def publishers(events: PredictionEvents) -> list[tuple[Callable[..., None], Callable[[], None]]]:
    """Each event's registration, and a call that publishes it."""
    view = PredictionView(prediction(), live())
    return [
        (events.add_created_listener, lambda: events.on_prediction_created(view)),
        (events.add_progressed_listener, lambda: events.on_run_progressed(live())),
        (events.add_canceled_listener, lambda: events.on_prediction_canceled(view)),
        (events.add_ended_listener, lambda: events.on_run_ended(END)),
    ]


async def test_listeners_are_called_in_the_order_they_were_added(events: PredictionEvents):
    called: list[str] = []
    for add, publish in publishers(events):
        for name in (Listener.WEBHOOKS, Listener.ACCOUNTING, Listener.STREAMS):
            add(name, lambda _, name=name: called.append(name))
        publish()
    assert called == ["webhooks", "accounting", "streams"] * 4


async def test_failing_listener_is_counted_and_affects_no_other(
    events: PredictionEvents, observer: FakeObserver, caplog: pytest.LogCaptureFixture
):
    """One defect costs one listener its event, and appears in the metrics under that listener's name."""
    for add, publish in publishers(events):
        called: list[object] = []
        observer.noted.clear()
        caplog.clear()
        add(Listener.WEBHOOKS, fail)
        add(Listener.STREAMS, called.append)
        publish()
        assert len(called) == 1
        assert observer.of("listener_failed") == ["webhooks"]
        (record,) = caplog.records
        assert (record.getMessage(), record.listener, record.run) == ("a listener failed", "webhooks", "run1")


@pytest.mark.parametrize("error", FAILURES, ids=["store", "defect"])
async def test_retried_listener_is_called_until_it_succeeds(
    events: PredictionEvents, observer: FakeObserver, clock: ManualClock, error: Exception
):
    """After one second, then two; once it has succeeded it is not called again."""
    flaky = Flaky(2, error)
    events.add_ended_listener(Listener.ACCOUNTING, flaky, is_retried=True)
    events.on_run_ended(END)
    assert flaky.calls == 1
    await clock.advance(0.9)
    assert flaky.calls == 1
    await clock.advance(0.2)
    assert (flaky.calls, flaky.done) == (2, [])
    await clock.advance(2)
    assert (flaky.calls, flaky.done) == (3, [END])
    await clock.advance(10_000)
    assert (flaky.calls, clock.sleeping) == (3, 0)
    assert observer.of("listener_failed") == ["accounting"] * 2


async def test_retry_calls_only_the_listener_that_failed(events: PredictionEvents, clock: ManualClock):
    """Nothing is counted twice because another listener failed."""
    flaky, steady = Flaky(1), Flaky(0)
    events.add_ended_listener(Listener.ACCOUNTING, flaky, is_retried=True)
    events.add_ended_listener(Listener.RUN_TIMINGS, steady, is_retried=True)
    events.on_run_ended(END)
    await clock.advance(5)
    assert (flaky.calls, steady.calls) == (2, 1)


async def test_retries_are_bounded(events: PredictionEvents, clock: ManualClock, caplog: pytest.LogCaptureFixture):
    """A permanent defect is not retried forever; the log says that the listener missed the end."""
    flaky = Flaky(10_000)
    events.add_ended_listener(Listener.ACCOUNTING, flaky, is_retried=True)
    events.on_run_ended(END)
    await clock.advance(10_000)
    assert flaky.calls == 1 + len(RETRY_SECONDS)
    assert [each.getMessage() for each in caplog.records].count("a listener missed an end") == 1


async def test_listener_without_retry_is_called_once(events: PredictionEvents, clock: ManualClock):
    flaky = Flaky(1)
    events.add_ended_listener(Listener.RUN_TIMINGS, flaky)
    events.on_run_ended(END)
    await clock.advance(1000)
    assert flaky.calls == 1


async def test_ends_waiting_for_a_retry_are_bounded(
    events: PredictionEvents, clock: ManualClock, caplog: pytest.LogCaptureFixture
):
    """Each keeps a document in memory: a defect under load must not fill it."""
    flaky = Flaky(MAX_RETRYING + 5)
    events.add_ended_listener(Listener.ACCOUNTING, flaky, is_retried=True)
    for _ in range(MAX_RETRYING + 5):
        events.on_run_ended(END)
    assert [each.getMessage() for each in caplog.records].count("a listener missed an end") == 5
    await clock.advance(1.5)
    assert len(flaky.done) == MAX_RETRYING
    flaky.left = 1
    events.on_run_ended(END)
    await clock.advance(1.5)
    assert len(flaky.done) == MAX_RETRYING + 1, "there is room again"


async def test_closing_stops_retries(events: PredictionEvents, clock: ManualClock):
    """Shutdown does not wait for a listener that fails."""
    flaky = Flaky(1)
    events.add_ended_listener(Listener.ACCOUNTING, flaky, is_retried=True)
    events.on_run_ended(END)
    await events.close()
    await clock.advance(100)
    assert flaky.calls == 1


def test_listener_names_are_valid_label_values():
    """They are values of a metric's label."""
    assert all(each.isascii() and each.islower() for each in module.Listener)
