"""Fast simulators on free ports."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from gateway.simulator import Simulator, SimulatorSettings
from tests.support.simulator_api import Api

QUICK = {"speed": 20.0, "stream_idle_seconds": 0.25, "allow_http_webhooks": True}


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Awaitable[Api]]]:
    """Start simulators with other settings; returns their clients."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=True))

        async def started(**settings: Any) -> Api:
            simulator = await stack.enter_async_context(Simulator(SimulatorSettings(**{**QUICK, **settings})))
            return Api(simulator, session)

        yield started


@pytest.fixture
async def api(start: Callable[..., Awaitable[Api]]) -> Api:
    """The client of a fast simulator."""
    return await start()


@pytest.fixture
def simulator(api: Api) -> Simulator:
    """The simulator behind `api`."""
    return api.simulator
