"""What tests of predictions share."""

from collections.abc import AsyncIterator

import pytest

from gateway.domain.records import Run
from gateway.predictions.events import Listener, PredictionEvents
from gateway.predictions.tracker import Tracker
from tests.support.adoption_search import Search
from tests.support.clock import START, ManualClock
from tests.support.create_core import CreateCore
from tests.support.fakes import FakeObserver, FakeStore, FakeUpstream
from tests.support.records import live
from tests.support.tracked_runs import Replicate, make_tracker


@pytest.fixture
async def core() -> AsyncIterator[CreateCore]:
    """The services of creates; every request for the model is shared."""
    made = CreateCore()
    yield made
    await made.close()


@pytest.fixture
async def search() -> AsyncIterator[Search]:
    """An adopter on fakes."""
    made = Search()
    yield made
    await made.adopter.close()


@pytest.fixture
def replicate(upstream: FakeUpstream) -> Replicate:
    return Replicate(upstream)


@pytest.fixture
def events(clock: ManualClock, observer: FakeObserver) -> PredictionEvents:
    made = PredictionEvents(clock, observer)
    made.add_ended_listener(
        Listener.PREDICTIONS, lambda end: observer.prediction_finished(end.run.team, end.run.status)
    )
    return made


@pytest.fixture
async def tracker(
    store: FakeStore, upstream: FakeUpstream, clock: ManualClock, observer: FakeObserver, events: PredictionEvents
) -> AsyncIterator[Tracker]:
    made = make_tracker(store, upstream, clock, observer, events)
    yield made
    await made.close()


@pytest.fixture
def run(store: FakeStore) -> Run:
    made = live(intended_at=START, live_at=START)
    store.runs[made.id] = made
    return made
