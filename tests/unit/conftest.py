"""What unit tests share. Properties are judged by what they find, not by how fast a busy machine finds it."""

import pytest
from hypothesis import HealthCheck, settings

from tests.support.clock import ManualClock
from tests.support.fakes import FakeObserver, FakeStore, FakeUpstream

settings.register_profile("core", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("core")


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
    """An upstream with responses that the test sets."""
    return FakeUpstream()


@pytest.fixture
def observer() -> FakeObserver:
    """Whoever counts."""
    return FakeObserver()
