"""The routes of the ops listener, which is separate from callers' traffic.

See docs/architecture.md, Operations.
"""

import logging

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.errors import Forbidden, GatewayError, Unauthenticated
from gateway.http import errors
from gateway.http.handlers import gateway_api
from gateway.http.keys import ACCESS, METRICS, SESSIONS
from gateway.http.ops import (
    audit,
    cache,
    config_state,
    dashboard,
    description,
    keys,
    nodes,
    predictions,
    teams,
    usage,
    webhooks,
)
from gateway.http.ops.answers import VIEWER
from gateway.http.ops.dashboard_access import ADMIN_COOKIE, PATH, redirect
from gateway.http.ops.guards import check_host, check_page, count_wrong_credential, is_ops_token

logger = logging.getLogger(__name__)

_OPEN = ("/", "/healthz", "/readyz")


async def show_metrics(request: web.Request) -> web.Response:
    """Handle `GET /metrics`, as Prometheus text or OpenMetrics."""
    body, content_type = await request.app[METRICS].scrape(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


async def show_start(_request: web.Request) -> web.Response:
    """Handle `GET /`: people who open the listener's address get the console."""
    return redirect(PATH)


async def hide_server(_request: web.Request, response: web.StreamResponse) -> None:
    """Replace aiohttp's `Server` header, which reveals versions."""
    response.headers["Server"] = errors.SERVER


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Require the operators' token, or else a loopback name as `Host`; refuse forms of foreign pages.

    Errors become problem documents.
    """
    try:
        check_host(request)
        check_page(request)
        await _check_access(request)
        return await handler(request)
    except GatewayError as exc:
        return errors.respond(exc)
    except web.HTTPException as exc:
        return errors.respond_http(exc)
    except Exception:
        logger.exception("ops request handler failed")
        return errors.crash()


async def _check_access(request: web.Request) -> None:
    """Raise `Unauthenticated` unless a request has the operators' token or, below `/admin`, their session.

    Raise `RateLimited` after too many wrong tokens.
    """
    if request.app[ACCESS].value.ops_token is None or request.path in _OPEN or dashboard.is_dashboard(request):
        return
    session = request.cookies.get(ADMIN_COOKIE)
    if session is not None and request.path.startswith("/admin/") and "Authorization" not in request.headers:
        viewer = request[VIEWER] = await request.app[SESSIONS].read(session)
        if viewer.caller is None:
            return
        raise Forbidden("This session is a team's. Operators sign in with their token.")
    given = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
    if not is_ops_token(request, given):
        if given:
            count_wrong_credential(request)
        raise Unauthenticated("The operators' token is missing or wrong. Send it as Authorization: Bearer TOKEN.")


def add_routes(app: web.Application) -> None:
    """Register the routes of the ops listener."""
    app.on_response_prepare.append(hide_server)
    app.router.add_get("/", show_start)
    app.router.add_get("/metrics", show_metrics)
    app.router.add_get("/healthz", gateway_api.healthz)
    app.router.add_get("/readyz", gateway_api.readyz)
    app.router.add_get("/admin/config", config_state.show_config)
    app.router.add_get("/admin/nodes", nodes.show_nodes)
    for family in (audit, cache, keys, predictions, teams, usage, webhooks, description, dashboard):
        family.add_routes(app)
