"""The two listeners, put together from the parts: callers' and operators'."""

import asyncio

from aiohttp import web

from gateway.assembly.parts import Parts
from gateway.dashboard import assets as dashboard_assets
from gateway.dashboard.loading import load_renderer
from gateway.domain.ports.tracing import NoTracer
from gateway.http import keys, middlewares, request_limits, routes, tracing
from gateway.http.handlers import stream_check
from gateway.http.ops import app as ops
from gateway.http.ops import dashboard
from gateway.http.ops.dashboard_streams import OPEN_PAGES, OpenPages
from gateway.http.route import Route
from gateway.http.sse import registry


def public_app(parts: Parts, extra_routes: tuple[Route, ...]) -> web.Application:
    """Put together what callers talk to. `extra_routes` are further open routes."""
    outermost = () if isinstance(parts.tracer, NoTracer) else (tracing.trace,)
    app = web.Application(middlewares=[*outermost, middlewares.observe, middlewares.problems, middlewares.authenticate])
    _share(app, parts)
    app.on_response_prepare.append(middlewares.add_common_headers)
    app.on_shutdown.append(_end_streams)
    routes.add_routes(app, extra_routes)
    return app


def ops_app(parts: Parts) -> web.Application:
    """Put together what operators talk to."""
    app = web.Application(middlewares=[ops.guard])
    _share(app, parts)
    ops.add_routes(app)
    return app


async def add_dashboard(app: web.Application, parts: Parts) -> None:
    """Give the ops listener its usage page."""
    app[keys.DASHBOARD] = parts.dashboard
    app[keys.SESSIONS] = parts.sessions
    app[dashboard.RENDERER] = await asyncio.to_thread(load_renderer)
    app[dashboard.ASSETS] = await asyncio.to_thread(dashboard_assets.load)
    pages = app[OPEN_PAGES] = OpenPages()
    parts.metrics.read_on_scrape("dashboard_streams", lambda: pages.count)


def _share(app: web.Application, parts: Parts) -> None:
    app[keys.SETTINGS] = parts.settings
    app[keys.STORE] = parts.store
    app[keys.CLOCK] = parts.clock
    app[keys.METRICS] = parts.metrics
    app[keys.TRACER] = parts.tracer
    app[keys.RECENT_ERRORS] = parts.recent_errors
    app[keys.UPSTREAM] = parts.client
    app[keys.HUB] = parts.hub
    app[keys.AUTHENTICATOR] = parts.authenticator
    app[keys.TOKENS] = parts.tokens
    app[keys.PREDICTIONS] = parts.predictions
    app[keys.CREATES] = parts.creates
    app[keys.USAGE] = parts.money.usage
    app[keys.UPSTREAM_WEBHOOKS] = parts.upstream_webhooks
    app[keys.EXPLAIN] = parts.explain
    app[keys.FILES] = parts.files
    app[keys.UPLOADS] = parts.uploads
    app[keys.METADATA] = parts.metadata
    if parts.outputs is not None:
        app[keys.OUTPUTS] = parts.outputs
    app[keys.POLICY] = parts.policy
    app[keys.VERSIONS] = parts.versions
    app[keys.WEBHOOK_SECRETS] = parts.secrets
    app[keys.HEALTH] = parts.health
    app[keys.UPSTREAM_LIMITER] = parts.account
    app[request_limits.RATES] = parts.rates
    app[request_limits.HOLD_QUEUE] = parts.hold_queue
    app[registry.OPEN_STREAMS] = parts.streams
    app[stream_check.PROBES] = parts.probes


async def _end_streams(app: web.Application) -> None:
    await app[registry.OPEN_STREAMS].end()
    app[stream_check.PROBES].end()
