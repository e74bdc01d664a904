"""The stack as fixtures, for a conftest to import."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.simulator import Simulator
from tests.support.stack import Stack, start_gateway, start_upstream

__all__ = ["gateway", "upstream"]


@pytest.fixture
async def upstream() -> AsyncIterator[Simulator]:
    """A simulator at twenty times normal speed, with a fresh token."""
    async with start_upstream() as simulator:
        yield simulator


@pytest.fixture
async def gateway(upstream: Simulator, tmp_path: Path) -> AsyncIterator[Stack]:
    """A gateway in front of it, with the teams alpha, beta and operator."""
    async with start_gateway(upstream, tmp_path) as stack:
        yield stack
