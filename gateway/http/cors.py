"""CORS: which pages of other origins may use the gateway.

See docs/architecture.md, Access, and docs/replicate-api.md, Browsers.

A preflight carries no key, so it is checked against the origins of all teams. The request that follows is checked
against the origins of its own team. An origin that is listed, or that a listed pattern matches, is echoed, with
credentials allowed; an origin that only matches `*` gets `*`, without credentials. `Vary` is on every response,
refusals too, so that caches keep origins apart.
"""

import re
from collections.abc import Collection, Iterator
from typing import Final

from aiohttp import web
from multidict import CIMultiDict

from gateway.domain.teams import origin_allowed, origin_listed
from gateway.http import base_url
from gateway.http.keys import CALLER, METRICS, PRESENTED_KEY, RECENT_ERRORS, SETTINGS, STREAM_ORIGINS

METHODS: Final = "GET, HEAD, POST, PATCH, DELETE, QUERY, OPTIONS"
# Seconds. Chromium caches a preflight for two hours at most, and for five seconds without this header.
MAX_AGE: Final = "7200"
_REQUEST_HEADERS: Final = (
    "Authorization, Content-Type, Accept, Prefer, Cancel-After, User-Agent, Cache-Control, Last-Event-ID, "
    "Range, If-Range, If-None-Match, If-Modified-Since, "
    "Idempotency-Key, Gateway-Cache, Gateway-Deterministic, X-Request-Id, "
    "X-Stainless-Arch, X-Stainless-Lang, X-Stainless-OS, X-Stainless-Package-Version, X-Stainless-Retry-Count, "
    "X-Stainless-Runtime, X-Stainless-Runtime-Version, X-Stainless-Timeout, X-Stainless-Helper-Method"
)
"""Headers that every page may send."""
_KNOWN: Final = frozenset(name.strip().lower() for name in _REQUEST_HEADERS.split(","))
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header (RFC 9110, 5.6.2)."""
_SHOWN: Final = re.compile(r"null|[A-Za-z][A-Za-z0-9+.-]{0,30}://[A-Za-z0-9._\[\]:-]{1,160}")
_MAX_NAMES: Final = 64
_MAX_NAMES_LENGTH: Final = 4096
_NEVER: Final = ("gateway-user", "gateway-tags")
"""Headers by which servers say for whom they call. A page may send neither these nor the headers of proxies."""
_EXPOSED: Final = (
    "Location, Preference-Applied, Retry-After, ratelimit-remaining, ratelimit-reset, RateLimit, RateLimit-Policy, "
    "Content-Disposition, Content-Range, Accept-Ranges, ETag, Age, Cache-Status, Server-Timing, X-Request-Id, "
    "Idempotency-Replayed"
)
VARY: Final = "Origin"
"""What the response depends on, besides what the route says."""
_VARY_PREFLIGHT: Final = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"


def preflight(request: web.Request) -> web.Response:
    """Respond to an OPTIONS request: as a preflight if it is one, else with the supported methods."""
    response = web.Response(status=204)
    if "Access-Control-Request-Method" in request.headers:
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Allow-Headers"] = _REQUEST_HEADERS + _asked_for(request)
        response.headers["Access-Control-Max-Age"] = MAX_AGE
        response.headers["Vary"] = _VARY_PREFLIGHT
    else:
        response.headers["Allow"] = METHODS
    return response


def _asked_for(request: web.Request) -> str:
    """Return further headers that an allowed page asks for, such as those of tracing tools, each after a comma.

    Return nothing for a list that is too long or has something that is no header's name: no browser sends that.
    """
    asked = request.headers.get("Access-Control-Request-Headers", "")
    if not asked or len(asked) > _MAX_NAMES_LENGTH or asked.count(",") >= _MAX_NAMES or refused_origin(request):
        return ""
    names = [name.strip(" \t") for name in asked.split(",")]
    if not all(map(_TOKEN.fullmatch, names)):
        return ""
    return "".join(f", {name}" for name in names if _may_send(name.lower()))


def _may_send(name: str) -> bool:
    return name not in _KNOWN and name not in _NEVER and not name.startswith("x-forwarded-") and name != "*"


def refused_origin(request: web.Request) -> str | None:
    """Return the origin of a page that may not read the response to its request; `None` if it may, or there is none."""
    origin = request.headers.get("Origin")
    if origin is None or origin_allowed(_allowed_origins(request), origin) or base_url.is_own_origin(request, origin):
        return None
    return origin


def note_refusal(request: web.Request) -> str | None:
    """Count a request whose response its page cannot read, and remember the origin for operators.

    Return the origin as it may be shown: anybody can send any text.
    """
    origin = refused_origin(request)
    if origin is None:
        return None
    key = request.get(PRESENTED_KEY, b"")
    is_shown = _SHOWN.fullmatch(origin) and not (key and key in origin.encode())
    shown = origin if is_shown else "malformed"
    is_preflight = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    caller = request.get(CALLER)
    request.app[METRICS].page_refused("preflight" if is_preflight else "request")
    request.app[RECENT_ERRORS].refused_origins.note(shown, caller.team.name if caller else None)
    return shown


def _allowed_origins(request: web.Request) -> Collection[str]:
    """Return the origins that may read the response: the ticket's, else the caller's, else of any team."""
    origins: Collection[str] | None = request.get(STREAM_ORIGINS)
    if origins is not None:
        return origins
    caller = request.get(CALLER)
    if caller is None:
        return request.app[SETTINGS].value.origins
    return (*caller.team.origins, *(caller.origins or ()))


def add_headers(request: web.Request, headers: CIMultiDict[str]) -> None:
    """Add the headers that let a page of a listed origin read the response. Call for every response, errors too."""
    if "Vary" not in headers:
        headers["Vary"] = VARY
    elif VARY not in headers["Vary"]:
        headers["Vary"] = f"{headers['Vary']}, {VARY}"
    if "Origin" in request.headers:
        headers.update(list(_allowing(request)))


def lines(request: web.Request) -> str:
    """Return what `add_headers` adds for a page, besides `Vary`, as lines of a response's head."""
    return "".join([f"{name}: {value}\r\n" for name, value in _allowing(request)])


def _allowing(request: web.Request) -> Iterator[tuple[str, str]]:
    """Return the headers for the page that sent the request; nothing if its origin is not allowed."""
    origin, allowed = request.headers["Origin"], _allowed_origins(request)
    if origin_listed(allowed, origin):
        yield "Access-Control-Allow-Origin", origin
        yield "Access-Control-Allow-Credentials", "true"
    elif "*" in allowed:
        origin = "*"
        yield "Access-Control-Allow-Origin", origin
    else:
        return
    yield "Access-Control-Expose-Headers", _EXPOSED
    # Timing-Allow-Origin exposes Server-Timing to the page's Performance API.
    yield "Timing-Allow-Origin", origin
