"""What the gateway answers while it waits for the store's database at the start: 503, and the reason at `/readyz`."""

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec
from aiohttp import web

from gateway.assembly.apply_config import live_settings
from gateway.assembly.ports import listen_for_callers, listen_for_operators
from gateway.config import Config
from gateway.errors import StoreAway
from gateway.http import errors, keys
from gateway.http.handlers import gateway_api
from gateway.http.ops import app as ops
from gateway.http.server import Runner
from gateway.metrics import Metrics

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 1.0
_RETRY_SECONDS = 5
_WAITS = "The gateway waits for its store."


class WaitingListeners:
    """Both listeners, opened when the start has to wait, and closed before it opens its own."""

    def __init__(self, config: Config, ops_socket: Path | None) -> None:
        self._config = config
        self._ops_socket = ops_socket
        self._runners: list[Runner] = []
        self._reason = ""

    async def answer(self, reason: str) -> None:
        """Answer 503 for this reason from now on. Raise `OSError` if a port is not available."""
        if reason != self._reason:
            logger.warning("the start waits for the store", extra={"reason": reason})
        self._reason = reason
        if not self._runners:
            runner, _ = await listen_for_operators(self._config, self._ops_app(), self._ops_socket)
            self._runners.append(runner)
            runner, _ = await listen_for_callers(self._config, self._public_app(), grace_seconds=_GRACE_SECONDS)
            self._runners.append(runner)

    async def close(self) -> None:
        """Close the listeners, if they are open."""
        while self._runners:
            await self._runners.pop().cleanup()

    def _ops_app(self) -> web.Application:
        live = live_settings(self._config)
        app = web.Application(middlewares=[ops.guard])
        app[keys.ACCESS] = live.access
        metrics = app[keys.METRICS] = Metrics(live.metrics, routes=[])
        metrics.read_on_scrape("ready", lambda: 0.0)
        metrics.read_on_scrape("degraded", lambda: {"database": 1.0})
        app.router.add_get("/metrics", ops.show_metrics)
        self._add_probes(app, lambda: self._reason)
        return app

    def _public_app(self) -> web.Application:
        app = web.Application()
        # The reason names hosts and users.
        self._add_probes(app, lambda: _WAITS)
        app.router.add_route("*", "/{path:.*}", self._refuse)
        return app

    def _add_probes(self, app: web.Application, reason: Callable[[], str]) -> None:
        async def readyz(_: web.Request) -> web.Response:
            body = msgspec.json.encode({"status": "not ready", "checks": {"store": reason()}})
            return web.Response(status=503, body=body, content_type="application/json")

        app.router.add_get("/healthz", gateway_api.healthz)
        app.router.add_get("/readyz", readyz)

    async def _refuse(self, _: web.Request) -> web.Response:
        return errors.respond(StoreAway(_WAITS, retry_after=_RETRY_SECONDS))
