"""The routes of the ops listener, which is separate from callers' traffic.

See docs/architecture.md, Operations.
"""

import logging

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.domain.audit import BY_API
from gateway.errors import GatewayError, Unauthenticated
from gateway.http import errors
from gateway.http.handlers import gateway_api
from gateway.http.keys import ACCESS, CLOCK, METRICS, STORE
from gateway.http.ops import audit, config_state, dashboard, keys, nodes
from gateway.http.ops.guards import check_host, is_ops_token
from gateway.operations.purging import purge

logger = logging.getLogger(__name__)

_OPEN = ("/healthz", "/readyz")


async def show_metrics(request: web.Request) -> web.Response:
    """Handle `GET /metrics`, as Prometheus text or OpenMetrics."""
    body, content_type = await request.app[METRICS].scrape(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


async def cache_stats(request: web.Request) -> web.Response:
    """Handle `GET /admin/cache?team=`: the number of cached results and their size in bytes."""
    now = request.app[CLOCK].now()
    stats = await request.app[STORE].cache_stats(now, request.query.get("team"))
    return web.Response(body=msgspec.json.encode(stats), content_type="application/json")


async def purge_cache(request: web.Request) -> web.Response:
    """Handle `DELETE /admin/cache?team=&target=`: drop cached results so that they are not reused.

    Without a query, drop all of them.
    """
    team, target = request.query.get("team"), request.query.get("target")
    purged = await purge(request.app[STORE], request.app[CLOCK].now(), BY_API, team=team, target=target)
    return web.Response(body=msgspec.json.encode({"purged": purged}), content_type="application/json")


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Require the operators' token, or else a loopback name as `Host`, and turn errors into problem documents."""
    try:
        check_host(request)
        _check_token(request)
        return await handler(request)
    except GatewayError as exc:
        return errors.respond(exc)
    except web.HTTPException as exc:
        return errors.respond_http(exc)
    except Exception:
        logger.exception("ops request handler failed")
        return errors.crash()


def _check_token(request: web.Request) -> None:
    if request.app[ACCESS].value.ops_token is None or request.path in _OPEN or dashboard.is_dashboard(request):
        return
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    if not is_ops_token(request, given):
        raise Unauthenticated("The operators' token is missing or wrong. Send it as Authorization: Bearer TOKEN.")


def add_routes(app: web.Application) -> None:
    """Register the routes of the ops listener."""
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", gateway_api.healthz)
    app.router.add_get("/readyz", gateway_api.readyz)
    app.router.add_get("/admin/config", config_state.show_config)
    app.router.add_get("/admin/cache", cache_stats)
    app.router.add_delete("/admin/cache", purge_cache)
    app.router.add_get("/admin/nodes", nodes.show_nodes)
    keys.add_routes(app)
    audit.add_routes(app)
    dashboard.add_routes(app)
