"""The routes of the ops listener, which is separate from callers' traffic.

See docs/architecture.md, Operations.
"""

import logging

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.errors import GatewayError, Unauthenticated
from gateway.http import errors
from gateway.http.handlers import gateway_api
from gateway.http.keys import ACCESS, METRICS
from gateway.http.ops import cache, config_state, dashboard, nodes, predictions, teams, usage, webhooks
from gateway.http.ops.guards import check_host, check_page, is_ops_token

logger = logging.getLogger(__name__)

_OPEN = ("/healthz", "/readyz")


async def show_metrics(request: web.Request) -> web.Response:
    """Handle `GET /metrics`, as Prometheus text or OpenMetrics."""
    body, content_type = await request.app[METRICS].scrape(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Require the operators' token, or else a loopback name as `Host`; refuse forms of foreign pages.

    Errors become problem documents.
    """
    try:
        check_host(request)
        check_page(request)
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
    app.router.add_get("/admin/nodes", nodes.show_nodes)
    for family in (cache, predictions, teams, usage, webhooks, dashboard):
        family.add_routes(app)
