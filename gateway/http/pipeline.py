"""What happens with every request of the public listener, in this order.

1. `handle` assigns the request id, finds the route, measures the time, and counts and logs the response.
2. `_serve` checks the size of the head and the path, and answers preflights.
3. `_admit` identifies the caller, and checks scope and request rate. Every route needs a key unless `OPEN_ROUTES` lists
   it.
4. The route's handler responds.

Exceptions of all of these become problem documents (`_problem_of`).

Common headers (`common_headers.py`) are added when a response is prepared, because a stream is prepared inside its
handler.

These are methods of one object, not middlewares in aiohttp's sense: together with aiohttp's router and its signal,
those took a third of the time of a poll.
"""

import logging
import re
import time
from contextlib import suppress
from itertools import chain

import msgspec
from aiohttp import HttpVersion11, web

from gateway.domain.limits import OWN_OF_PAGES, SubjectKind
from gateway.domain.teams import Caller
from gateway.errors import (
    BudgetExceeded,
    CallerLeft,
    Forbidden,
    GatewayError,
    HeadTooLarge,
    LimitReached,
    NotFound,
    RateLimited,
)
from gateway.http import access_log, base_url, cors, errors, request_limits, response_body
from gateway.http.common_headers import add_common_headers, new_id
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
from gateway.http.request import Request
from gateway.http.request_body import refuse_own_key_in_head, release
from gateway.http.response_memory import SMALL_RESPONSE
from gateway.http.route import CLOSED_TO_PAGES, CREATES, OPEN_ROUTES, Route
from gateway.http.route_table import Match, NoMatch, RouteTable
from gateway.operations.rules import overview_rows

logger = logging.getLogger(__name__)

# No route has other characters. Percent-encoding and dot segments could bypass the matching of routes.
_PLAIN_PATH = re.compile(r"(?:/[A-Za-z0-9_.:@=+~-]+)*/?")
_DOTS = frozenset({".", ".."})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_FIRST_ERROR = 400
_NO_ROUTE = "no route"
# Paths that may hold a ticket: an error does not show it, and is that of a ticket that does not exist.
_TICKETS = re.compile("/(?:v1/)?(?:outputs|streams)/")
_LONGEST_SHOWN = 100
"""Characters of an unknown path in its error."""


class _Problem(msgspec.Struct):
    detail: str = ""


_decode_problem = msgspec.json.Decoder(_Problem).decode


class Pipeline:
    """Handles the requests of the public listener. `app` has what the handlers call."""

    def __init__(self, app: web.Application, table: RouteTable) -> None:
        self._table = table
        self._settings = app[SETTINGS]
        self._metrics = app[METRICS]
        self._authenticator = app[AUTHENTICATOR]
        self._limiter = app[UPSTREAM_LIMITER]
        self._recent_errors = app[RECENT_ERRORS]

    async def handle(self, request: Request) -> web.StreamResponse:
        """Respond to a request: assign its id, find its route, and count and log the response."""
        request.add_headers = add_common_headers
        headers = request.headers
        state = request.state
        started = state[STARTED] = time.perf_counter()
        given = headers.get("X-Request-Id")
        state[REQUEST_ID] = given if given is not None and _REQUEST_ID.fullmatch(given) else new_id()
        path, route = request.raw_path, None
        if "?" in path or not path.startswith("/"):
            path = _path_of(request)
        found = named = self._table.find(request.method, path)
        if isinstance(found, NoMatch) and not _is_plain(path):
            # It is refused, but logged by the name of the route that it means.
            named = self._table.find(request.method, request.rel_url.path_safe)
        if isinstance(named, Match):
            route, request.match_info = named
            state[ROUTE] = route
        metrics = self._metrics
        metrics.began()
        status = 499  # nginx's code: the client disconnected before there was a response
        response: web.StreamResponse | None = None
        try:
            try:
                if "Expect" in headers:
                    await _answer_expectation(request)
                response = await self._serve(request, path, found)
            except Exception as exc:  # noqa: BLE001 - logged there
                response = self._problem_of(exc, request)
            else:
                if response.status >= _FIRST_ERROR and CALLER in state:
                    detail = f"Replicate's own response: {_detail_of(response)}"
                    self._record_error(request, response.status, detail, is_upstreams=True)
            status = response.status
            return response
        finally:
            seconds = time.perf_counter() - started
            metrics.answered(route.name if route else access_log.UNMATCHED, request.method, status, seconds)
            if BODY_BYTES in state:
                release(request)
            if OVERHEAD in state:
                elsewhere = state.get(UPSTREAM_SECONDS, 0.0)
                if HOLD in state:
                    elsewhere += state[HOLD].seconds + state.get(RUN_SECONDS, 0.0)
                metrics.overhead(state[OVERHEAD], max(0.0, seconds - elsewhere))
            refused_origin = cors.note_refusal(request) if "Origin" in headers else None
            if access_log.logger.isEnabledFor(logging.INFO):
                access_log.log_request(request, response, route, status, seconds, refused_origin)

    async def _serve(self, request: Request, path: str, found: Match | NoMatch) -> web.StreamResponse:
        """Check what concerns every request, and call the route's handler."""
        # Names and values, joined in C: this runs for every request.
        head = b"".join(chain.from_iterable(request.raw_headers))
        limit = self._settings.value.max_header_bytes
        if len(head) > limit:
            raise HeadTooLarge(f"The header fields of the request are larger than {limit} bytes in all.")
        if request.method == "OPTIONS":
            # Preflights carry no key.
            if request.path.startswith("/outputs/"):
                request[STREAM_ORIGINS] = ANY_ORIGIN
            return cors.preflight(request)
        if isinstance(found, NoMatch):
            if not found.methods:
                if found.is_known or not _is_plain(path) or _TICKETS.match(path):
                    raise NotFound
                raise NotFound(_no_route(request.method, path))
            return errors.method_not_allowed(request.method, found.methods, request[REQUEST_ID])
        if "/." in path and not _is_plain(path):
            raise NotFound
        route = found.route
        if route.name not in OPEN_ROUTES:
            await self._admit(request, route, head)
        response = await route.handler(request)
        size = response.content_length
        if size is not None and size > SMALL_RESPONSE and not response.prepared and request.method != "HEAD":
            return await response_body.send_whole(request, response)
        return response

    def _problem_of(self, error: Exception, request: Request) -> web.Response:
        """Return the problem document of an exception, as Replicate writes them. Record it for the console."""
        request_id = request[REQUEST_ID]
        if isinstance(error, GatewayError):
            self._metrics.refused(type(error).__name__)
            if not isinstance(error, (NotFound, CallerLeft)):
                # Scanners try paths, clients request expired predictions and callers leave: none needs an operator.
                self._record_error(request, errors.status_of(error), error.detail)
            return errors.respond(_as_shown(error, request.get(CALLER)), request_id)
        if isinstance(error, web.HTTPException):
            return errors.respond_http(error, request_id)
        logger.error("request handler failed", exc_info=error, extra={"request_id": request_id})
        self._record_error(request, 500, "The gateway failed to process the request; its log has the details.")
        return errors.crash(request_id)

    async def _admit(self, request: Request, route: Route, head: bytes) -> None:
        """Identify the caller, and check the key's scope and the request rate. `head` has all its header fields.

        Raise `Unauthenticated`, `Forbidden`, `Unprocessable` if the head contains the caller's key, or `RateLimited`.
        """
        headers, state = request.headers, request.state
        authorization = headers.get("Authorization")
        # Servers send neither header.
        page = base_url.page_of(request) if "Origin" in headers or "Sec-Fetch-Site" in headers else None
        known = self._authenticator.recall(authorization, page)
        if known is None:
            known = await self._authenticator.identify(authorization, page)
        caller = state[CALLER] = known.caller
        state[PRESENTED_KEY] = known.presented
        if caller.is_public and route.name in CLOSED_TO_PAGES:
            raise Forbidden("This route needs a server's key: tokens of users and keys with origins cannot use it.")
        if route.scope not in caller.scopes:
            raise Forbidden(f"Your key lacks the scope '{route.scope}', which this route requires.")
        refuse_own_key_in_head(request, known.presented, head)
        await request_limits.admit(request, caller, is_create=route.name in CREATES)
        # Sets a context variable. Each request is handled in a task of its own, so it applies to this request only.
        self._limiter.asked_by(caller.team.name)

    def _record_error(self, request: Request, status: int, detail: str, *, is_upstreams: bool = False) -> None:
        """Record an error for the console."""
        caller, route = request.get(CALLER), request.get(ROUTE)
        user, target = access_log.user_and_target(request)
        self._recent_errors.note(
            caller.team.name if caller else None,
            f"{overview_rows.route_words(route.name) if route else _NO_ROUTE}: {status}",
            detail,
            is_upstreams=is_upstreams,
            key=(caller.key_name or caller.key_id) if caller else None,
            user=user,
            target=target,
            request_id=request.get(REQUEST_ID),
        )


async def _answer_expectation(request: Request) -> None:
    """Send `100 Continue` if the client waits for it. Raise `HTTPExpectationFailed` for any other expectation."""
    expectation = request.headers["Expect"]
    if not expectation or request.version != HttpVersion11:
        return
    if expectation.lower() != "100-continue":
        raise web.HTTPExpectationFailed
    writer = request.writer
    with suppress(ConnectionError):
        # Whether the client has left is found out with the body, or with the response.
        await writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # It is not a part of the response, which has not started.
    writer.output_size = 0


def _as_shown(error: GatewayError, caller: Caller | None) -> GatewayError:
    """Return the error without what a web page may not see: budgets of its team or key, limits of tags, their usage."""
    if caller is None or not caller.is_public or not isinstance(error, LimitReached) or error.limit is None:
        return error
    name, of = error.limit["name"], error.limit["of"]
    if isinstance(error, BudgetExceeded) and of not in OWN_OF_PAGES:
        whose = f"the limit {name} of " + ("one of your cost tags" if of == SubjectKind.TAG else f"your {of}")
        detail = f"Over budget: {whose} is used up or reserved."
        if error.retry_after is None:
            detail = (
                f"Over budget: this prediction is estimated at more than {whose}. It can never pass under this budget."
            )
        return BudgetExceeded(detail, retry_after=error.retry_after)
    if of == SubjectKind.TAG:
        detail = f"Request was throttled: the limit {name} of one of your cost tags is reached."
        return RateLimited(detail, retry_after=error.retry_after)
    return error


def _detail_of(response: web.StreamResponse) -> str:
    """Return the `detail` of a problem document, or "" if the body is streamed or not a problem document."""
    body = response.body if isinstance(response, web.Response) else None
    try:
        return _decode_problem(body).detail if isinstance(body, bytes) else ""
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""


def _no_route(method: str, path: str) -> str:
    shown = path if len(path) <= _LONGEST_SHOWN else f"{path[:_LONGEST_SHOWN]}…"
    return (
        f"There is no such route: {method} {shown}. /openapi.json lists the gateway's own routes; those below /v1 are "
        "Replicate's."
    )


def _path_of(request: Request) -> str:
    """Return the path as it was sent."""
    path = request.raw_path.partition("?")[0]
    # Otherwise a request target in absolute form (RFC 9112, 3.2.2).
    return path if path.startswith("/") else request.rel_url.raw_path


def _is_plain(path: str) -> bool:
    return _PLAIN_PATH.fullmatch(path) is not None and _DOTS.isdisjoint(path.split("/"))
