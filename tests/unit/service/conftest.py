"""What the services' tests share."""

import pytest

from tests.support.clock import ManualClock
from tests.unit.service.fakes import FakeObserver, FakeStore, FakeUpstream


@pytest.fixture
def clock() -> ManualClock:
    """A clock that stands still."""
    return ManualClock()


@pytest.fixture
def store() -> FakeStore:
    """A store in memory."""
    return FakeStore()


@pytest.fixture
def upstream() -> FakeUpstream:
    """An upstream that says what it is told to."""
    return FakeUpstream()


@pytest.fixture
def observer() -> FakeObserver:
    """Whoever counts."""
    return FakeObserver()
