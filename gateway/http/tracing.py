"""Opens a span for each request, around the pipeline. Used only if tracing is enabled."""

from aiohttp import web

from gateway.http import access_log
from gateway.http.keys import CALLER, ROUTE, TRACE_ID, TRACER, VIEW
from gateway.http.request import Handle, Request

_SERVER_ERROR = 500
_CLIENT_CLOSED_REQUEST = 499


async def trace(request: Request, handle: Handle) -> web.StreamResponse:
    """Record a span of the request. Names and attributes come from closed sets, plus ids of traces and teams."""
    headers = request.headers
    method = request.method if request.method in access_log.METHODS else "_OTHER"
    opened = request.app[TRACER].request(method, headers.get("traceparent"), headers.get("tracestate"))
    with opened as span:
        if span.trace_id is not None:
            request[TRACE_ID] = span.trace_id
        response: web.StreamResponse | None = None
        try:
            response = await handle(request)
            return response
        finally:
            route = request.get(ROUTE)
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
