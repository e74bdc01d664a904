"""The simulator as one object: two listeners, its state, and handles for tests."""

import asyncio
from types import TracebackType

from aiohttp import web

from gateway.simulator.api.apps import api_app, delivery_app
from gateway.simulator.clock import SimulatorClock
from gateway.simulator.faults import FaultBook
from gateway.simulator.journal import RequestLog
from gateway.simulator.prediction import Prediction
from gateway.simulator.settings import SimulatorSettings
from gateway.simulator.world import World

_SWEEP_SECONDS = 60.0
_GRACE_SECONDS = 0.5  # for responses in progress at close


class Simulator:
    """A simulator of the Replicate API. Start it, use `base_url` in a client, and inspect `requests`."""

    def __init__(self, settings: SimulatorSettings | None = None) -> None:
        self.settings = settings or SimulatorSettings()
        self.world = World(self.settings)
        self.base_url = ""
        self.delivery_url = ""
        self._runners: list[web.AppRunner] = []
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def token(self) -> str:
        """An accepted token."""
        return self.world.accounts.token

    @property
    def requests(self) -> RequestLog:
        """Received requests of both origins."""
        return self.world.requests

    @property
    def clock(self) -> SimulatorClock:
        """Its clock; `advance` moves it."""
        return self.world.clock

    @property
    def faults(self) -> FaultBook:
        """The active faults."""
        return self.world.faults

    @property
    def predictions(self) -> list[Prediction]:
        """All predictions and trainings, oldest first."""
        return list(self.world.in_order())

    async def start(self) -> None:
        """Open both listeners."""
        settings = self.settings
        api, api_port = await self._listen(api_app(self.world), settings.port)
        wanted = settings.delivery_port or (settings.port + 1 if settings.port else 0)
        delivery, delivery_port = await self._listen(delivery_app(self.world), wanted, cancel_when_left=True)
        host = "127.0.0.1" if settings.host in {"0.0.0.0", "::", ""} else settings.host  # noqa: S104 - a comparison
        named = f"[{host}]" if ":" in host else host
        self.base_url = (settings.public_url or f"http://{named}:{api_port}").rstrip("/").removesuffix("/v1") + "/v1"
        self.delivery_url = (settings.delivery_public_url or f"http://{named}:{delivery_port}").rstrip("/")
        self.world.links.api = self.base_url
        self.world.links.delivery = self.delivery_url
        self._runners = [api, delivery]
        self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def close(self) -> None:
        """Close the listeners and stop all tasks."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None
        self.world.let_go()
        runners, self._runners = self._runners, []
        await asyncio.gather(*(runner.cleanup() for runner in runners))
        await self.world.close()

    async def __aenter__(self) -> "Simulator":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _listen(
        self, app: web.Application, port: int, *, cancel_when_left: bool = False
    ) -> tuple[web.AppRunner, int]:
        runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=_GRACE_SECONDS, handler_cancellation=cancel_when_left
        )
        await runner.setup()
        site = web.TCPSite(runner, self.settings.host, port, backlog=1024)
        try:
            await site.start()
        except OSError:
            await runner.cleanup()
            raise
        bound: int = runner.addresses[0][1]
        return runner, bound

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.world.sweep()
