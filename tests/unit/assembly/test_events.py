"""The listeners of a run's end, connected as in the gateway: order and isolation."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.assembly.events import connect_listeners
from gateway.domain.records import Status
from gateway.domain.run_end import RunEnded
from gateway.errors import StoreUnavailable
from gateway.predictions.events import PredictionEvents
from gateway.predictions.tracker import Tracker
from tests.support.clock import START, ManualClock, settle
from tests.support.fakes import FakeObserver, FakeStore, FakeUpstream, answer, free
from tests.support.records import live, prediction

ORDER = [
    "predictions",
    "hits",
    "accounting",
    "limit_queue",
    "webhooks",
    "output_copies",
    "run_timings",
    "recent_errors",
]
RETRIED = {"accounting"}


class Parts:
    """Stand-ins for every part that listens. `broken` ones raise `error`."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.done: list[str] = []
        self.broken: set[str] = set()
        self.error: Exception = RuntimeError("a defect")

    def part(self, name: str) -> Any:
        return _Part(self, name)


class _Part:
    def __init__(self, parts: Parts, name: str) -> None:
        self._parts = parts
        self._name = name

    def on_run_ended(self, ended: RunEnded) -> None:
        self._parts.called.append(self._name)
        if self._name in self._parts.broken:
            raise self._parts.error
        self._parts.done.append(self._name)

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
def events(clock: ManualClock, observer: FakeObserver, parts: Parts) -> PredictionEvents:
    made = PredictionEvents(clock, observer)
    connect_listeners(
        made,
        predictions=parts.part("predictions"),
        hits=parts.part("hits"),
        accounting=parts.part("accounting"),
        limit_queue=parts.part("limit_queue"),
        dispatcher=parts.part("webhooks"),
        hub=parts.part("streams"),
        copier=parts.part("output_copies"),
        run_timings=parts.part("run_timings"),
        recent_errors=parts.part("recent_errors"),
    )
    return made


async def end_a_run(
    events: PredictionEvents, store: FakeStore, upstream: FakeUpstream, clock: ManualClock, observer: FakeObserver
) -> list[Status]:
    """Let a run end for which three callers wait; return what they were answered."""
    store.runs["run1"] = run = live(intended_at=START, live_at=START)
    store.kept["p1"] = prediction()
    upstream.script = lambda _: answer(200, b'{"id":"uprun1","status":"succeeded"}')
    tracker = Tracker(
        store,
        upstream,
        clock,
        events,
        observer,
        requests_per_minute=lambda: 3000.0,
        keep_until=lambda *_: None,
        settlement_of=free,
    )
    tracked = tracker.follow(run)
    waiting = [asyncio.create_task(tracked.wait_until(lambda each: each.status.is_terminal, 10)) for _ in range(3)]
    await settle()
    await clock.advance(0.5)
    await tracker.close()
    return [(await each).status for each in waiting]


async def test_end_calls_the_store_and_each_listener_once(events, parts, store, upstream, clock, observer):
    """Nothing is read from the store again: the event contains what listeners need."""
    assert await end_a_run(events, store, upstream, clock, observer) == [Status.SUCCEEDED] * 3
    assert parts.called == ORDER
    assert store.calls == ["advance"]
    assert observer.of("listener_failed") == []


@pytest.mark.parametrize(
    "error", [StoreUnavailable("The store did not answer."), RuntimeError("a defect")], ids=["store", "defect"]
)
@pytest.mark.parametrize("broken", ORDER)
async def test_failing_listener_delays_no_caller_and_no_other_listener(
    events, parts, store, upstream, clock, observer, broken: str, error: Exception
):
    """Callers get their responses, and the failed listener's work is done by the retry."""
    parts.broken, parts.error = {broken}, error
    assert await end_a_run(events, store, upstream, clock, observer) == [Status.SUCCEEDED] * 3
    assert parts.called == ORDER
    assert parts.done == [each for each in ORDER if each != broken]
    assert observer.of("listener_failed") == [broken]
    parts.broken = set()
    await clock.advance(2)
    assert parts.done.count(broken) == (1 if broken in RETRIED else 0)
    assert len(parts.done) == len(ORDER) - (0 if broken in RETRIED else 1)
    await events.close()


async def test_outputs_are_not_copied_without_an_output_store(clock: ManualClock, observer: FakeObserver, parts: Parts):
    made = PredictionEvents(clock, observer)
    connect_listeners(
        made,
        **{
            name: parts.part(name)
            for name in (
                "predictions", "hits", "accounting", "limit_queue", "dispatcher", "hub", "run_timings",
                "recent_errors",
            )
        },
        copier=None,
    )  # fmt: skip
    assert len(made._ended) == len(ORDER) - 1
