"""The stack as fixtures. A conftest takes them by `from tests.support.fixtures import *`."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.simulator import Simulator
from tests.support.stack import Stack, start_gateway, start_upstream

__all__ = ["gateway", "upstream"]


@pytest.fixture
async def upstream() -> AsyncIterator[Simulator]:
    """A simulator, twenty times as fast as life, with a fresh token."""
    async with start_upstream() as simulator:
        yield simulator


@pytest.fixture
async def gateway(upstream: Simulator, tmp_path: Path) -> AsyncIterator[Stack]:
    """A gateway before it, with the teams alpha and beta and an operator."""
    async with start_gateway(upstream, tmp_path) as stack:
        yield stack
