"""Handle a request: log it, apply faults, authenticate, limit its rate, and respond."""

import asyncio
import contextlib
import gzip
from collections.abc import Callable, Iterable

from aiohttp import web

from gateway.simulator import problems
from gateway.simulator.api.call import Answer, Call
from gateway.simulator.api.routes import Route, allowed_methods
from gateway.simulator.journal import RecordedRequest
from gateway.simulator.settings import MAX_UPLOAD_BYTES
from gateway.simulator.world import World

_FORM_BYTES = 1024 * 1024  # overhead of a form around its file
LARGEST_BODY = MAX_UPLOAD_BYTES + _FORM_BYTES
_PIECES = 10  # number of chunks of a slow body
_DJANGO_HEADERS = {"vary": "Cookie, origin", "x-frame-options": "DENY", "x-content-type-options": "nosniff"}

Targets = Callable[[Call], Iterable[str]]


class Dropped(Exception):
    """Close the connection without a response."""


class RouteHandler:
    """Handles the requests of a route."""

    __slots__ = ("_headers", "_origin", "_route", "_targets", "_world")

    def __init__(self, world: World, route: Route, origin: str, targets: Targets) -> None:
        self._world = world
        self._route = route
        self._origin = origin
        self._targets = targets
        self._headers = (
            {"allow": ", ".join(allowed_methods(route.path)), **_DJANGO_HEADERS} if route.side == "django" else {}
        )

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Handle a request."""
        route, world = self._route, self._world
        too_large = (request.content_length or 0) > LARGEST_BODY
        try:
            body = b"" if too_large or not request.body_exists else await request.read()
        except web.HTTPRequestEntityTooLarge:
            body, too_large = b"", True
        except ConnectionError:
            # The caller disconnected while sending its body.
            return web.Response(status=499)
        entry = RecordedRequest(
            self._origin,
            route.operation,
            request.method,
            request.path,
            request.query_string,
            {name.lower(): value for name, value in request.headers.items()},
            world.clock.now(),
        )
        world.requests.record(entry, body)
        call = Call(world, request, route.operation, body, {})
        if world.faults:
            needs_target = world.faults.needs_target(route.operation, request.path)
            call.faults = world.faults.strike(
                route.operation, request.path, self._targets(call) if needs_target else ()
            )
        limits: dict[str, str] = {}
        try:
            answer = await self._answer(call, limits, too_large=too_large)
        except problems.Problem as problem:
            encoded, content_type = problem.encode()
            answer = Answer(problem.status, encoded, content_type, {**limits, **problem.headers})
        except Dropped:
            _drop(request)
            return web.Response(status=500)
        if isinstance(answer, web.StreamResponse):
            entry.status = answer.status
            return answer
        entry.status = answer.status
        return await self._send(call, answer)

    async def _answer(self, call: Call, limits: dict[str, str], *, too_large: bool) -> Answer | web.StreamResponse:
        if call.faults:
            early = await _before(call)
            if early is not None:
                return early
        if not self._route.open:
            call.account = self._world.accounts.authenticate(call.request.headers.get("Authorization"))
        if self._route.limit is not None:
            limits |= self._limit(call)
        if too_large:
            raise problems.too_large()
        late = call.faults.get("html_error_after")
        if late is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._route.handler(call), late.get("seconds"))
            return _html(late.get("status"))
        answer = await self._route.handler(call)
        if "drop_after" in call.faults:
            raise Dropped
        if isinstance(answer, Answer):
            answer.headers = {**self._headers, **limits, **answer.headers}
        return answer

    def _limit(self, call: Call) -> dict[str, str]:
        kind = self._route.limit or ""
        bucket = self._world.bucket(call.account, kind)
        remaining = bucket.take()
        if remaining is None:
            raise problems.throttled(
                bucket.retry_after(), low_credit=kind == "create" and self._world.settings.low_credit
            )
        return {"ratelimit-remaining": str(remaining), "ratelimit-reset": "1"}

    async def _send(self, call: Call, answer: Answer) -> web.StreamResponse:
        headers = {**answer.headers, "Content-Type": answer.content_type}
        faults = call.faults
        body = answer.body
        if not faults:
            return web.Response(status=answer.status, body=body, headers=headers)
        if "delay_headers" in faults:
            await call.world.faults.delay(faults["delay_headers"])
        if "malformed_json" in faults:
            body = body[: len(body) // 2]
        if "gzip" in faults and "gzip" in call.request.headers.get("Accept-Encoding", ""):
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        if "slow_body" not in faults:
            return web.Response(status=answer.status, body=body, headers=headers)
        response = web.StreamResponse(status=answer.status, headers={**headers, "Content-Length": str(len(body))})
        await response.prepare(call.request)
        step = max(1, -(-len(body) // _PIECES))
        for start in range(0, len(body), step):
            await asyncio.sleep(faults["slow_body"].get("seconds") / _PIECES)
            await response.write(body[start : start + step])
        await response.write_eof()
        return response


async def _before(call: Call) -> Answer | None:
    """Apply the faults that come before the request is processed."""
    faults = call.faults
    if "delay" in faults:
        await call.world.faults.delay(faults["delay"])
    for name, fault in faults.items():
        match name:
            case "drop_before":
                raise Dropped
            case "html_error":
                return _html(fault.get("status"))
            case "error":
                raise problems.Problem(fault.get("status"), {"detail": fault.get("value")})
            case "throttle" | "throttle_low_credit":
                raise problems.throttled(fault.get("retry_after"), low_credit=name == "throttle_low_credit")
            case "insufficient_credit":
                raise problems.insufficient_credit()
            case "token_revoked":
                raise problems.unauthenticated(fault.get("value"))
            case "redirect":
                return Answer(fault.get("status"), b"", "text/html; charset=utf-8", {"Location": fault.get("value")})
    return None


def _html(status: int) -> Answer:
    return Answer(status, problems.html_page(status), "text/html; charset=UTF-8")


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
