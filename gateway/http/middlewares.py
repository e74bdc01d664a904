"""What every request passes, outermost first.

1. `observe`: gives the request its id and its clock, and counts the answer, whatever becomes of it.
2. `problems`: turns whatever is raised further in into a problem document. It stands outside of authentication, whose
   refusals are problems too.
3. `authenticate`: says who asks, whether that key may use this route, and whether it may so often. Routes are closed by
   default: one is open only if it stands in `OPEN_ROUTES`.

Headers that every answer carries are added when it is prepared, so that streams, which are prepared early, have them.
"""

import logging
import random
import re
import time

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.errors import Forbidden, GatewayError, NotFound
from gateway.http import access_log, base_url, cors, errors, request_limits
from gateway.http.handlers.outputs import ANY_ORIGIN
from gateway.http.keys import (
    ACCOUNT,
    AUTHENTICATOR,
    BEGAN,
    CALLER,
    METRICS,
    OVERHEAD,
    PRESENTED,
    REQUEST_ID,
    STREAM_ORIGINS,
    TROUBLES,
    UPSTREAM_SECONDS,
)
from gateway.http.request_body import refuse_own_key_in_head
from gateway.http.route import CREATES, OPEN_ROUTES, ROUTES, Route

logger = logging.getLogger(__name__)

# A path outside of these is never one of ours; encodings and dots are how paths are smuggled past a route table.
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_.:@=+~-]+)*/?")
_DOTS = frozenset({".", ".."})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_FIRST_ERROR = 400


class _Problem(msgspec.Struct):
    detail: str = ""


_decode_problem = msgspec.json.Decoder(_Problem).decode


def _route_of(request: web.Request) -> Route | None:
    return request.app[ROUTES].get(request.match_info.route)


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count and log every answer."""
    began = request[BEGAN] = time.perf_counter()
    given = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = given if _REQUEST_ID.fullmatch(given) else _new_id()
    metrics = request.app[METRICS]
    metrics.began()
    status = 499  # as nginx has it: the caller left before there was an answer
    response: web.StreamResponse | None = None
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        seconds = time.perf_counter() - began
        route = _route_of(request)
        metrics.answered(route.name if route else access_log.UNMATCHED, request.method, status, seconds)
        if (path := request.get(OVERHEAD)) is not None:
            metrics.overhead(path, max(0.0, seconds - request.get(UPSTREAM_SECONDS, 0.0)))
        access_log.log_request(request, response, route, status, seconds)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer errors as Replicate does."""
    try:
        return _noted(request, await handler(request))
    except GatewayError as exc:
        request.app[METRICS].refused(type(exc).__name__)
        if not isinstance(exc, NotFound):
            # Strangers try paths, and a prediction that is gone is asked for once more: neither is anybody's trouble.
            _note(request, errors.status_of(exc), exc.detail)
        return errors.respond(exc)
    except web.HTTPException as exc:
        return errors.respond_http(exc)
    except Exception:
        logger.exception("a request crashed", extra={"request_id": request[REQUEST_ID]})
        _note(request, 500, "The gateway failed to answer; its log says why.")
        return errors.crash()


def _noted(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    if response.status >= _FIRST_ERROR and CALLER in request:
        _note(request, response.status, f"Replicate's own answer: {_detail_of(response)}")
    return response


def _detail_of(response: web.StreamResponse) -> str:
    """Read what Replicate says in a problem document; what passes through as a stream is not at hand."""
    body = response.body if isinstance(response, web.Response) else None
    try:
        return _decode_problem(body).detail if isinstance(body, bytes) else ""
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _note(request: web.Request, status: int, detail: str) -> None:
    """Remember what went wrong, for the usage page."""
    caller, route = request.get(CALLER), _route_of(request)
    what = f"{route.name if route else access_log.UNMATCHED}: {status}"
    request.app[TROUBLES].note(caller.team.name if caller else None, what, detail)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let nobody in without a key that fits the route."""
    if request.method == "OPTIONS":
        if request.path.startswith("/outputs/"):
            request[STREAM_ORIGINS] = ANY_ORIGIN
        return cors.preflight(request)
    if not _is_plain(request):
        raise NotFound
    route = _route_of(request)
    if route is None or route.name in OPEN_ROUTES:
        return await handler(request)
    authorization = request.headers.get("Authorization")
    caller = await request.app[AUTHENTICATOR].authenticate(authorization, base_url.page_of(request))
    request[CALLER] = caller
    request[PRESENTED] = (authorization or "").partition(" ")[2].strip()
    if not caller.may(route.scope):
        raise Forbidden(f"Your key lacks the scope '{route.scope}'.")
    refuse_own_key_in_head(request)
    await request_limits.admit(request, caller, is_create=route.name in CREATES)
    # Each request is handled in a task, and so in a context, of its own.
    request.app[ACCOUNT].asked_by(caller.team.name)
    return await handler(request)


def _is_plain(request: web.Request) -> bool:
    path = request.raw_path.partition("?")[0]
    if not path.startswith("/"):
        # The absolute form of a request target (RFC 9112, 3.2.2).
        path = request.rel_url.raw_path
    return _PLAIN_PATH.fullmatch(path) is not None and _DOTS.isdisjoint(path.split("/"))


async def add_common_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add what every answer carries: its id, CORS, timing, and that it is not to be kept unless it says otherwise."""
    headers = response.headers
    # What was refused before `observe` has no id yet.
    headers["X-Request-Id"] = request.get(REQUEST_ID) or _new_id()
    cors.add_headers(request, headers, request.get(STREAM_ORIGINS))
    request_limits.add_headers(request, headers)
    headers.setdefault("Cache-Control", "no-store")
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Server"] = errors.SERVER
    if BEGAN in request and "Server-Timing" not in headers:
        upstream = request.get(UPSTREAM_SECONDS, 0.0)
        own = max(0.0, time.perf_counter() - request[BEGAN] - upstream)
        timing = f"gateway;dur={own * 1000:.1f}"
        headers["Server-Timing"] = timing + (f", upstream;dur={upstream * 1000:.1f}" if upstream else "")


def _new_id() -> str:
    # It tells requests apart and guards nothing, so it need not be unforeseeable.
    return f"{random.getrandbits(96):024x}"
