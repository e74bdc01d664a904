"""Maps errors to HTTP responses. No other module knows which error has which HTTP status.

See docs/architecture.md, Invariants 12.
"""

import secrets
from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web

from gateway import errors
from gateway.domain.problems import CONTENT_TYPE, problem
from gateway.domain.upstream_response import Answer
from gateway.throttling.rules import rate_headers

SERVER: Final = "replicate-gateway"
"""The `Server` header. It reveals neither language nor version."""

_STATUS: dict[type[errors.GatewayError], int] = {
    errors.BadRequest: 400,
    errors.Unauthenticated: 401,
    errors.IssuerUnavailable: 503,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.BodyTooLarge: 413,
    errors.HeadTooLarge: 431,
    # nginx's code. Nobody receives it; logs and metrics show it.
    errors.CallerLeft: 499,
    errors.UnsupportedMedia: 415,
    errors.Unprocessable: 422,
    errors.BudgetExceeded: 402,
    errors.LimitReached: 429,
    errors.GatewayError: 500,
    errors.UpstreamError: 502,
    errors.UpstreamUnavailable: 503,
    errors.StoreUnavailable: 503,
    errors.Overloaded: 503,
    errors.NotCached: 504,
    errors.UpstreamTimeout: 504,
    errors.UpstreamUncertain: 504,
}
_BARE: Final = {"detail": "The requested resource could not be found.", "status": 404}
"""Upstream's response to a create whose target it does not have."""
_DEFAULT_RETRY_AFTER = {503: 1}
_NOT_HTTP = "The request could not be understood as HTTP."
_MALFORMED = {
    414: "The request's URL is too long.",
    415: "The body's content coding is not supported; use gzip, deflate or none.",
    431: "A header field of the request is too long.",
    500: "The gateway failed to process this request.",
}


def status_of(error: errors.GatewayError) -> int:
    """Return the HTTP status of an error, by the nearest class in its ancestry that has one."""
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def respond(error: errors.GatewayError, request_id: str | None = None) -> web.Response:
    """Return the problem document of an error, with the headers that its status requires."""
    status = status_of(error)
    retry_after = error.retry_after if error.retry_after is not None else _DEFAULT_RETRY_AFTER.get(status)
    fields = error.fields if isinstance(error, errors.Unprocessable) else ()
    limit = error.limit if isinstance(error, errors.LimitReached) else None
    response = _problem(
        status,
        problem(
            status,
            error.title,
            error.detail,
            invalid_fields=fields,
            retry_after=retry_after,
            limit=limit,
            request_id=request_id,
        ),
    )
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    if limit is not None and (refusing := rate_headers.refusing(limit, retry_after)) is not None:
        response.headers["RateLimit-Policy"] = refusing.policy
        response.headers["RateLimit"] = refusing.state
        # This request cannot be served now, even if part of a budget remains.
        response.headers["ratelimit-remaining"] = "0"
        if refusing.seconds is not None:
            response.headers["ratelimit-reset"] = str(refusing.seconds)
    if isinstance(error, errors.UpstreamUncertain):
        # Stainless clients retry a create after a 504, and would pay twice, unless this header forbids it.
        response.headers["X-Should-Retry"] = "false"
    if status == HTTPStatus.UNAUTHORIZED:
        # Required with a 401 (RFC 9110, 11.6.1).
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def respond_http(error: web.HTTPException, request_id: str | None = None) -> web.Response:
    """Return the problem document of an error that aiohttp raised."""
    match error:
        case web.HTTPNotFound():
            # Only the router raises it.
            return respond(errors.NotFound("There is no such route."))
        case web.HTTPMethodNotAllowed():
            return method_not_allowed(error.method, error.allowed_methods, request_id)
        case web.HTTPRequestEntityTooLarge():
            return respond(errors.BodyTooLarge("The request's body is larger than the gateway accepts."), request_id)
        case _:
            return _problem(
                error.status, problem(error.status, error.reason, f"{error.reason}.", request_id=request_id)
            )


def method_not_allowed(method: str, allowed: Iterable[str], request_id: str | None = None) -> web.Response:
    """Return the response to a path that exists, with a method that it does not have."""
    response = _problem(
        405, problem(405, "Method not allowed", f'Method "{method}" not allowed.', request_id=request_id)
    )
    response.headers["Allow"] = ", ".join(sorted({*allowed, "OPTIONS"}))
    return response


def crash(request_id: str | None = None) -> web.Response:
    """Return the response to an unexpected exception. The details go to the log only."""
    detail = "The gateway failed to process this request."
    return _problem(500, problem(500, "Internal server error", detail, request_id=request_id))


def malformed(status: int) -> web.Response:
    """Return the response to bytes that are not an HTTP request. The connection closes after it."""
    request_id = secrets.token_hex(12)
    detail = _MALFORMED.get(status, _NOT_HTTP)
    response = _problem(status, problem(status, HTTPStatus(status).phrase, detail, request_id=request_id))
    # The pipeline does not see this response, so the common headers are added here.
    response.headers["X-Request-Id"] = request_id
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    response.headers["Server"] = SERVER
    response.force_close()
    return response


def pass_on_create(answer: Answer, target: str, request_id: str | None) -> web.Response:
    """Return upstream's response to a create unchanged, but for a 404 that does not say what was not found."""
    if answer.status != HTTPStatus.NOT_FOUND or not _is_bare(answer.body):
        return pass_on(answer)
    detail = f"Replicate has no {target}, or the account may not use it."
    return _problem(404, problem(404, "Target not found", detail, request_id=request_id, is_of_record=False))


def _is_bare(body: bytes) -> bool:
    try:
        return bool(msgspec.json.decode(body) == _BARE)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False


def pass_on(answer: Answer) -> web.Response:
    """Return upstream's response unchanged, without the account's rate limit."""
    return web.Response(status=answer.status, headers=answer.shown_headers, body=answer.body)


def _problem(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type=CONTENT_TYPE)
