"""Opens the two listeners: one for callers, one for operators."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import msgspec
from aiohttp import web

from gateway.assembly.build import Parts
from gateway.assembly.ports import listen_for_callers, listen_for_operators, shown_origin
from gateway.dashboard import assets as dashboard_assets
from gateway.dashboard.loading import load_renderer
from gateway.domain.ports.tracing import NoTracer
from gateway.http import keys, request_limits, routes, tracing
from gateway.http.bytes_by_team import BytesByTeam
from gateway.http.handlers import stream_check
from gateway.http.ops import app as ops
from gateway.http.ops import config_state, dashboard_access
from gateway.http.ops.config_state import ConfigState
from gateway.http.ops.dashboard_streams import OPEN_PAGES, OpenPages
from gateway.http.ops.guards import HEADER_ATTEMPTS, SIGN_IN_ATTEMPTS, SignInAttempts
from gateway.http.pipeline import Pipeline
from gateway.http.request import IS_DRAINING, Handle
from gateway.http.response_memory import ResponseMemory
from gateway.http.route import Route
from gateway.http.sse import registry

logger = logging.getLogger(__name__)


class OpenListeners(msgspec.Struct, frozen=True):
    """Where the gateway is reached, and what operators see of reloads."""

    origin: str
    ops_url: str
    config_state: ConfigState
    close_idle: Callable[[], Awaitable[None]]
    """Closes the port of callers, and their connections without a request."""
    receive: Callable[[float], Awaitable[None]]
    """Waits, for so many seconds at most, until requests that are arriving have arrived."""


async def open_listeners(
    parts: Parts, extra_routes: tuple[Route, ...] = (), ops_socket: Path | None = None
) -> OpenListeners:
    """Serve callers and operators until the stack closes. Raise `OSError` if a port is not available.

    `extra_routes` are further open routes of the public listener. With `ops_socket`, operators are served there, and
    another process has the port.
    """
    base, config = parts.base, parts.base.config
    operators = _ops_app(parts)
    state = operators[config_state.CONFIG_STATE] = ConfigState(base.clock.now())
    await _add_dashboard(operators, parts)
    runner, ops_port = await listen_for_operators(config, operators, ops_socket)
    base.stack.push_async_callback(runner.cleanup)
    grace = float(config.server.shutdown_grace_seconds) - config.server.drain_seconds
    callers = _public_app(parts)
    handle = _pipeline(callers, parts, extra_routes)
    runner, port = await listen_for_callers(config, callers, grace_seconds=grace, handle=handle)
    base.stack.push_async_callback(runner.cleanup)
    origin, ops_url = shown_origin(config.server.host, port), shown_origin(config.ops.host, ops_port)
    logger.info("serving", extra={"url": origin, "ops_url": ops_url, "port": port, "ops_port": ops_port})
    return OpenListeners(origin, ops_url, state, runner.close_idle, runner.receive)


def _public_app(parts: Parts) -> web.Application:
    """Return the application of callers: what the handlers call. `_pipeline` handles its requests."""
    app = web.Application()
    _share(app, parts)
    health = parts.operations.health
    app[IS_DRAINING] = lambda: health.draining
    app.on_shutdown.append(_end_streams)
    return app


def _pipeline(app: web.Application, parts: Parts, extra_routes: tuple[Route, ...]) -> Handle:
    """Return what handles the requests of callers."""
    handle = Pipeline(app, routes.table(extra_routes)).handle
    return handle if isinstance(parts.base.tracer, NoTracer) else partial(tracing.trace, handle=handle)


def _ops_app(parts: Parts) -> web.Application:
    """Return the application of operators."""
    app = web.Application(middlewares=[ops.guard])
    _share(app, parts)
    ops.add_routes(app)
    return app


async def _add_dashboard(app: web.Application, parts: Parts) -> None:
    """Add the console to the ops listener."""
    app[keys.DASHBOARD] = parts.operations.dashboard
    app[keys.SESSIONS] = parts.access.sessions
    app[keys.CONSOLE_SIGN_IN] = parts.access.sign_in
    app[dashboard_access.RENDERER] = await asyncio.to_thread(load_renderer)
    app[dashboard_access.ASSETS] = await asyncio.to_thread(dashboard_assets.load)
    for attempts in (SIGN_IN_ATTEMPTS, HEADER_ATTEMPTS):
        app[attempts] = SignInAttempts(parts.base.clock)
    pages = app[OPEN_PAGES] = OpenPages()
    parts.base.metrics.read_on_scrape("dashboard_streams", lambda: pages.count)


def _share(app: web.Application, parts: Parts) -> None:
    """Give handlers what they call."""
    base, upstream, access, models = parts.base, parts.upstream, parts.access, parts.models
    predictions, streams, operations = parts.predictions, parts.streams, parts.operations
    app[keys.SETTINGS] = base.live.http
    app[keys.ACCESS] = base.live.access
    app[keys.STORE] = base.store
    app[keys.MEMBERSHIP] = base.membership
    app[keys.CLOCK] = base.clock
    app[keys.METRICS] = base.metrics
    memory = app[keys.BODY_MEMORY] = BytesByTeam()
    base.metrics.read_on_scrape("request_body_bytes", lambda: memory.used)
    responses = app[keys.RESPONSE_MEMORY] = ResponseMemory(lambda: base.live.http.value.max_responses_bytes)
    base.metrics.read_on_scrape("response_bytes", lambda: responses.used)
    base.metrics.read_on_scrape("waiters", lambda: {"response": responses.waiting})
    app[keys.TRACER] = base.tracer
    app[keys.UPSTREAM] = upstream.client
    app[keys.UPSTREAM_LIMITER] = upstream.limiter
    app[request_limits.RATES] = parts.rates.rates
    app[request_limits.HOLD_QUEUE] = parts.rates.hold_queue
    app[keys.USAGE] = parts.money.usage
    app[keys.AUTHENTICATOR] = access.authenticator
    app[keys.KEY_SERVICE] = access.keys
    app[keys.TOKENS] = access.tokens
    app[keys.POLICY] = access.policy
    app[keys.METADATA] = models.metadata
    app[keys.VERSIONS] = models.versions
    app[keys.PREDICTIONS] = predictions.service
    app[keys.CREATES] = predictions.creates
    app[keys.ESTIMATES] = predictions.estimates
    app[keys.UPSTREAM_WEBHOOKS] = predictions.upstream_webhooks
    app[keys.HUB] = streams.hub
    app[registry.OPEN_STREAMS] = streams.open_streams
    app[stream_check.PROBES] = streams.probes
    app[keys.WEBHOOK_SECRETS] = parts.webhooks.secrets
    app[keys.FILES] = parts.files.files
    app[keys.UPLOADS] = parts.files.uploads
    app[keys.DOWNLOADS] = parts.files.downloads
    if parts.outputs is not None:
        app[keys.OUTPUTS] = parts.outputs.service
    app[keys.RECENT_ERRORS] = operations.recent_errors
    app[keys.EXPLAIN] = operations.explain
    app[keys.PREDICTION_LOG] = operations.prediction_log
    app[keys.TEAMS] = operations.teams
    app[keys.HEALTH] = operations.health


async def _end_streams(app: web.Application) -> None:
    await app[registry.OPEN_STREAMS].end()
    app[stream_check.PROBES].end()
