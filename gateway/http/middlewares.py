"""The middlewares of the public listener, outermost first.

1. `observe` assigns the request id, measures the time, and counts and logs every response.
2. `problems` turns exceptions into problem documents. It encloses `authenticate`, whose refusals are problems too.
3. `authenticate` identifies the caller, and checks scope and request rate. Every route needs a key unless
   `OPEN_ROUTES` lists it.

Common headers are added in the `on_response_prepare` signal, because a stream is prepared inside its handler.
"""

import logging
import random
import re
import time
from itertools import chain
from typing import NoReturn

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from gateway.domain.limits import OWN_OF_PAGES
from gateway.domain.teams import Caller
from gateway.errors import BudgetExceeded, CallerLeft, Forbidden, GatewayError, HeadTooLarge, NotFound
from gateway.http import access_log, base_url, cors, errors, request_limits
from gateway.http.handlers.outputs import ANY_ORIGIN
from gateway.http.keys import (
    AUTHENTICATOR,
    BODY_BYTES,
    CALLER,
    HOLD,
    METRICS,
    OVERHEAD,
    PRESENTED_KEY,
    RECENT_ERRORS,
    REQUEST_ID,
    ROUTE,
    RUN_SECONDS,
    SETTINGS,
    STARTED,
    STREAM_ORIGINS,
    UPSTREAM_LIMITER,
    UPSTREAM_SECONDS,
)
from gateway.http.request_body import refuse_own_key_in_head, release
from gateway.http.route import CLOSED_TO_PAGES, CREATES, OPEN_ROUTES, ROUTES

logger = logging.getLogger(__name__)

# No route has other characters. Percent-encoding and dot segments could bypass the matching of routes.
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_.:@=+~-]+)*/?")
_DOTS = frozenset({".", ".."})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_FIRST_ERROR = 400


class _Problem(msgspec.Struct):
    detail: str = ""


_decode_problem = msgspec.json.Decoder(_Problem).decode


@web.middleware
async def observe(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Assign the request id, and count and log the response."""
    started = request[STARTED] = time.perf_counter()
    given = request.headers.get("X-Request-Id", "")
    request[REQUEST_ID] = given if _REQUEST_ID.fullmatch(given) else _new_id()
    route = request.app[ROUTES].get(request.match_info.route)
    if route is not None:
        request[ROUTE] = route
    metrics = request.app[METRICS]
    metrics.began()
    status = 499  # nginx's code: the client disconnected before there was a response
    response: web.StreamResponse | None = None
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        seconds = time.perf_counter() - started
        metrics.answered(route.name if route else access_log.UNMATCHED, request.method, status, seconds)
        if BODY_BYTES in request:
            release(request)
        if (path := request.get(OVERHEAD)) is not None:
            elsewhere = request.get(UPSTREAM_SECONDS, 0.0)
            if (hold := request.get(HOLD)) is not None:
                elsewhere += hold.seconds + request.get(RUN_SECONDS, 0.0)
            metrics.overhead(path, max(0.0, seconds - elsewhere))
        refused = cors.note_refusal(request) if "Origin" in request.headers else None
        access_log.log_request(request, response, route, status, seconds, refused)


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn exceptions into problem documents, as Replicate writes them, and record errors for the usage page."""
    try:
        # Names and values, summed up in C: this runs for every request.
        if sum(map(len, chain.from_iterable(request.raw_headers))) > request.app[SETTINGS].value.max_header_bytes:
            _refuse_head(request)
        response = await handler(request)
    except GatewayError as exc:
        request.app[METRICS].refused(type(exc).__name__)
        if not isinstance(exc, (NotFound, CallerLeft)):
            # Scanners try paths, clients request expired predictions and callers leave: none needs an operator.
            _record_error(request, errors.status_of(exc), exc.detail)
        return errors.respond(_as_shown(exc, request.get(CALLER)), request[REQUEST_ID])
    except web.HTTPException as exc:
        return errors.respond_http(exc, request[REQUEST_ID])
    except Exception:
        logger.exception("request handler failed", extra={"request_id": request[REQUEST_ID]})
        _record_error(request, 500, "The gateway failed to process the request; its log has the details.")
        return errors.crash(request[REQUEST_ID])
    if response.status >= _FIRST_ERROR and CALLER in request:
        _record_error(request, response.status, f"Replicate's own response: {_detail_of(response)}")
    return response


def _refuse_head(request: web.Request) -> NoReturn:
    limit = request.app[SETTINGS].value.max_header_bytes
    raise HeadTooLarge(f"The header fields of the request are larger than {limit} bytes in all.")


def _as_shown(error: GatewayError, caller: Caller | None) -> GatewayError:
    """Return the error without amounts that a web page may not see: budgets of its team or key, and their usage."""
    if caller is None or not caller.is_public or not isinstance(error, BudgetExceeded):
        return error
    if error.limit is None or error.limit["of"] in OWN_OF_PAGES:
        return error
    detail = f"Over budget: the limit {error.limit['name']} of your {error.limit['of']} is used up or reserved."
    return BudgetExceeded(detail, retry_after=error.retry_after)


def _detail_of(response: web.StreamResponse) -> str:
    """Return the `detail` of a problem document, or "" if the body is streamed or not a problem document."""
    body = response.body if isinstance(response, web.Response) else None
    try:
        return _decode_problem(body).detail if isinstance(body, bytes) else ""
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _record_error(request: web.Request, status: int, detail: str) -> None:
    """Record an error for the usage page."""
    caller, route = request.get(CALLER), request.get(ROUTE)
    what = f"{route.name if route else access_log.UNMATCHED}: {status}"
    request.app[RECENT_ERRORS].note(caller.team.name if caller else None, what, detail)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Identify the caller, and check the key's scope and the request rate. Respond to preflights without a key.

    Raise `Unauthenticated`, `Forbidden`, `NotFound` for a path that no route can have, or `RateLimited`.
    """
    if request.method == "OPTIONS":
        if request.path.startswith("/outputs/"):
            request[STREAM_ORIGINS] = ANY_ORIGIN
        return cors.preflight(request)
    if not _is_plain(request):
        raise NotFound
    route = request.get(ROUTE)
    if route is None or route.name in OPEN_ROUTES:
        return await handler(request)
    authorization = request.headers.get("Authorization")
    caller = await request.app[AUTHENTICATOR].authenticate(authorization, base_url.page_of(request))
    request[CALLER] = caller
    request[PRESENTED_KEY] = (authorization or "").partition(" ")[2].strip().encode("utf-8", "surrogateescape")
    if caller.is_public and route.name in CLOSED_TO_PAGES:
        raise Forbidden("This route needs a server's key: browser tokens and keys with origins cannot use it.")
    if not caller.may(route.scope):
        raise Forbidden(f"Your key lacks the scope '{route.scope}', which this route requires.")
    refuse_own_key_in_head(request)
    await request_limits.admit(request, caller, is_create=route.name in CREATES)
    # Sets a context variable. Each request is handled in a task of its own, so it applies to this request only.
    request.app[UPSTREAM_LIMITER].asked_by(caller.team.name)
    return await handler(request)


def _is_plain(request: web.Request) -> bool:
    path = request.raw_path.partition("?")[0]
    if not path.startswith("/"):
        # A request target in absolute form (RFC 9112, 3.2.2).
        path = request.rel_url.raw_path
    return _PLAIN_PATH.fullmatch(path) is not None and _DOTS.isdisjoint(path.split("/"))


async def add_common_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add the common headers: request id, CORS, rate limits, timing, and `Cache-Control: no-store` unless it is set."""
    headers = response.headers
    # A request that is refused before `observe` runs has no id yet.
    headers["X-Request-Id"] = request.get(REQUEST_ID) or _new_id()
    cors.add_headers(request, headers)
    request_limits.add_headers(request, headers)
    headers.setdefault("Cache-Control", "no-store")
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Server"] = errors.SERVER
    if STARTED in request and "Server-Timing" not in headers:
        # The time of a create that was held, or waited for its run, is not the gateway's own.
        upstream, run, hold = request.get(UPSTREAM_SECONDS, 0.0), request.get(RUN_SECONDS), request.get(HOLD)
        own = time.perf_counter() - request[STARTED] - upstream - (run or 0.0)
        timing = ""
        if hold is not None and hold.seconds:
            own -= hold.seconds
            timing = f'held;dur={hold.seconds * 1000:.1f};desc="{hold.by}", '
        timing += f"gateway;dur={max(0.0, own) * 1000:.1f}"
        if run is not None:
            timing += f", run;dur={run * 1000:.1f}"
        headers["Server-Timing"] = timing + (f", upstream;dur={upstream * 1000:.1f}" if upstream else "")


def _new_id() -> str:
    # The id is not a secret, so a fast generator that is not cryptographic is enough.
    return f"{random.getrandbits(96):024x}"
