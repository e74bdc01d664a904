"""CORS: which pages of other origins may use the gateway.

See docs/architecture.md, Access, and docs/replicate-api.md, Browsers.

A preflight carries no key, so it is checked against the origins of all teams. The request that follows is checked
against the origins of its own team. A listed origin is echoed, with credentials allowed; an origin that only matches
`*` gets `*`, without credentials. `Vary` is on every response, refusals too, so that caches keep origins apart.
"""

from collections.abc import Collection
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from gateway.domain.teams import origin_allowed
from gateway.http.keys import CALLER, SETTINGS

METHODS: Final = "GET, HEAD, POST, PATCH, DELETE, QUERY, OPTIONS"
# Seconds. Chromium caches a preflight for two hours at most, and for five seconds without this header.
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
    """Respond to an OPTIONS request: as a preflight if it is one, else with the supported methods."""
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
    """Add the headers that let a page of a listed origin read the response. Call for every response, errors too.

    `origins` replaces the caller's origins, for requests without a key such as streams.
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
    # Timing-Allow-Origin exposes Server-Timing to the page's Performance API.
    headers["Timing-Allow-Origin"] = headers["Access-Control-Allow-Origin"]
