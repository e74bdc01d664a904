"""The ops listener: metrics and probes for operators, apart from callers' traffic.

See docs/architecture.md, Operations.
"""

import logging

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.errors import GatewayError, Unauthenticated
from gateway.http import errors
from gateway.http.handlers import gateway_api
from gateway.http.keys import ACCESS, CLOCK, METRICS, STORE
from gateway.http.ops import config_state, dashboard
from gateway.http.ops.token import is_operators

logger = logging.getLogger(__name__)

_OPEN = ("/healthz", "/readyz")


async def show_metrics(request: web.Request) -> web.Response:
    """`GET /metrics`, as Prometheus text or OpenMetrics."""
    body, content_type = await request.app[METRICS].scrape(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


async def cache_stats(request: web.Request) -> web.Response:
    """`GET /admin/cache`: how many results are kept for later requests, and their size in bytes."""
    now = request.app[CLOCK].now()
    stats = await request.app[STORE].cache_stats(now, request.query.get("team"))
    return web.Response(body=msgspec.json.encode(stats), content_type="application/json")


async def purge_cache(request: web.Request) -> web.Response:
    """`DELETE /admin/cache?team=&target=`: let results answer no more requests; without a query, all."""
    store, purged = request.app[STORE], 0
    team, target = request.query.get("team"), request.query.get("target")
    while (went := await store.purge_cache(team=team, target=target)) > 0:
        purged += went
    return web.Response(body=msgspec.json.encode({"purged": purged}), content_type="application/json")


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Ask for the operators' token where one is set; answer errors as problems."""
    try:
        _check_token(request)
        return await handler(request)
    except GatewayError as exc:
        return errors.respond(exc)
    except web.HTTPException as exc:
        return errors.respond_http(exc)
    except Exception:
        logger.exception("an ops request crashed")
        return errors.crash()


def _check_token(request: web.Request) -> None:
    if request.app[ACCESS].value.ops_token is None or request.path in _OPEN or dashboard.is_part_of_it(request):
        return
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    if not is_operators(request, given):
        raise Unauthenticated("The operators' token is missing or wrong.")


def add_routes(app: web.Application) -> None:
    """Register the doors of the ops listener."""
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", gateway_api.healthz)
    app.router.add_get("/readyz", gateway_api.readyz)
    app.router.add_get("/admin/config", config_state.show_config)
    app.router.add_get("/admin/cache", cache_stats)
    app.router.add_delete("/admin/cache", purge_cache)
    dashboard.add_routes(app)
