"""CORS: what pages of other origins may do (docs/architecture.md, Access; docs/replicate-api.md, Browsers).

A preflight carries no key, so it is judged by all teams' origins together; the request that follows is judged by its
own team's. An origin is named back, never `*`, except to lists that say `*`; those get no credentials. What a browser
keys its caches by stands in `Vary`, on refusals too.
"""

from collections.abc import Collection
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from gateway.domain.teams import origin_allowed
from gateway.http.keys import CALLER, SETTINGS

METHODS: Final = "GET, HEAD, POST, PATCH, DELETE, QUERY, OPTIONS"
# Chromium keeps a preflight no longer than two hours; without a word it keeps it five seconds.
MAX_AGE: Final = "7200"
_REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Accept, Prefer, Cancel-After, User-Agent, Cache-Control, Last-Event-ID, "
    "Range, If-Range, If-None-Match, If-Modified-Since, "
    "Idempotency-Key, Gateway-Cache, Gateway-Deterministic, Gateway-User, X-Request-Id, "
    "X-Stainless-Arch, X-Stainless-Lang, X-Stainless-OS, X-Stainless-Package-Version, X-Stainless-Retry-Count, "
    "X-Stainless-Runtime, X-Stainless-Runtime-Version, X-Stainless-Timeout, X-Stainless-Helper-Method"
)
_EXPOSED: Final = (
    "Location, Preference-Applied, Retry-After, ratelimit-remaining, ratelimit-reset, RateLimit, RateLimit-Policy, "
    "Content-Disposition, Content-Range, Accept-Ranges, ETag, Age, Cache-Status, Server-Timing, X-Request-Id, "
    "Idempotency-Replayed"
)
_VARY: Final = "Origin"
_VARY_PREFLIGHT: Final = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


def preflight(request: web.Request) -> web.Response:
    """Answer an OPTIONS request. Without the headers of a preflight it says no more than what is understood."""
    response = web.Response(status=204)
    if "Access-Control-Request-Method" in request.headers:
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Allow-Headers"] = _REQUEST_HEADERS
        response.headers["Access-Control-Max-Age"] = MAX_AGE
        response.headers["Vary"] = _VARY_PREFLIGHT
    else:
        response.headers["Allow"] = METHODS
    return response


def add_headers(request: web.Request, headers: CIMultiDict[str], origins: Collection[str] | None = None) -> None:
    """Let the page that asked read the answer, if its origin is listed. For every answer, errors and streams too.

    `origins` are those that count where there is no caller: a stream's, say.
    """
    if "Vary" not in headers:
        headers["Vary"] = _VARY
    elif _VARY not in headers["Vary"]:
        headers["Vary"] = f"{headers['Vary']}, {_VARY}"
    origin = request.headers.get("Origin")
    if origin is None:
        return
    caller = request.get(CALLER)
    if origins is None:
        settings = request.app[SETTINGS].value
        origins = settings.origins if caller is None else (*caller.team.origins, *(caller.origins or ()))
    listed = tuple(origins)
    if not origin_allowed(listed, origin):
        return
    if origin.lower() in listed:
        headers["Access-Control-Allow-Origin"] = origin
        headers["Access-Control-Allow-Credentials"] = "true"
    else:
        headers["Access-Control-Allow-Origin"] = "*"
    headers["Access-Control-Expose-Headers"] = _EXPOSED
    # Timing-Allow-Origin lets the page see Server-Timing in its own measurements.
    headers["Timing-Allow-Origin"] = headers["Access-Control-Allow-Origin"]
