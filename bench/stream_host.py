"""The simulator with a stream host of a benchmark's own in front of it, in a process of its own."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from gateway.simulator import SimulatorSettings

Stream = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def until_stopped() -> None:
    """Wait for SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


async def serve_streams(settings: "SimulatorSettings", model: str, stream: Stream) -> None:
    """Run the simulator, with streams answered by `stream`, until SIGTERM. Print token, address and version as JSON."""
    from gateway.simulator import Simulator

    app = web.Application()
    app.router.add_get("/v1/streams/{token}", stream)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with Simulator(settings) as simulator:
        simulator.world.links.delivery = f"http://127.0.0.1:{runner.addresses[0][1]}"
        latest = simulator.world.registry.models[model].latest
        assert latest is not None
        said = {"token": simulator.token, "base_url": simulator.base_url, "version": latest.id}
        print(json.dumps(said), flush=True)
        await until_stopped()
