"""What tests of creates share."""

from collections.abc import AsyncIterator

import pytest

from tests.support.create_core import CreateCore


@pytest.fixture
async def core() -> AsyncIterator[CreateCore]:
    """The services of creates; every request for the model is shared."""
    made = CreateCore()
    yield made
    await made.close()
