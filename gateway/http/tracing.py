"""The middleware that opens a span for each request. It is outermost, and installed only if tracing is enabled."""

from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.http import access_log
from gateway.http.keys import CALLER, TRACE_ID, TRACER, VIEW
from gateway.http.route import ROUTES

_SERVER_ERROR = 500
_CLIENT_CLOSED_REQUEST = 499


@web.middleware
async def trace(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Record a span of the request. Names and attributes come from closed sets, plus ids of traces and teams."""
    headers = request.headers
    method = request.method if request.method in access_log.METHODS else "_OTHER"
    opened = request.app[TRACER].request(method, headers.get("traceparent"), headers.get("tracestate"))
    with opened as span:
        if span.trace_id is not None:
            request[TRACE_ID] = span.trace_id
        response: web.StreamResponse | None = None
        try:
            response = await handler(request)
            return response
        finally:
            route = request.app[ROUTES].get(request.match_info.route)
            template = route.template if route else access_log.UNMATCHED
            status = response.status if response is not None else _CLIENT_CLOSED_REQUEST
            attributes: dict[str, str | int] = {"http.route": template, "http.response.status_code": status}
            caller, about = request.get(CALLER), request.get(VIEW)
            if team := caller.team.name if caller else about.prediction.team if about else None:
                attributes["gateway.team"] = team
            if result := access_log.cache_result(response):
                attributes["gateway.cache"] = result
            if status >= _SERVER_ERROR:
                attributes["error.type"] = str(status)
            span.end_as(f"{method} {template}", attributes)
