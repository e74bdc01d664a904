"""What tests of predictions share."""

from collections.abc import AsyncIterator

import pytest

from tests.support.adoption_search import Search
from tests.support.create_core import CreateCore


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
