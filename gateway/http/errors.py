"""From errors to answers: the one place that knows which error is which HTTP status.

See docs/architecture.md, Invariants 12.
"""

import secrets
from http import HTTPStatus
from typing import Final

from aiohttp import web

from gateway import errors
from gateway.domain.problems import CONTENT_TYPE, problem
from gateway.domain.upstream_response import Answer
from gateway.throttling.rules import rate_headers

SERVER: Final = "replicate-gateway"
"""What answers say of themselves: neither language nor version."""

_STATUS: dict[type[errors.GatewayError], int] = {
    errors.BadRequest: 400,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.BodyTooLarge: 413,
    errors.UnsupportedMedia: 415,
    errors.Unprocessable: 422,
    errors.BudgetExceeded: 402,
    errors.LimitReached: 429,
    errors.GatewayError: 500,
    errors.UpstreamError: 502,
    errors.UpstreamUnavailable: 503,
    errors.StoreUnavailable: 503,
    errors.NotCached: 504,
    errors.UpstreamTimeout: 504,
    errors.UpstreamUncertain: 504,
}
_DEFAULT_RETRY_AFTER = {503: 1}
_NOT_HTTP = "The request could not be understood as HTTP."
_MALFORMED = {
    415: "The body's content coding is not supported; use gzip, deflate or none.",
    500: "The gateway failed to answer.",
}


def status_of(error: errors.GatewayError) -> int:
    """Return the status of an error: that of the nearest class in its ancestry."""
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


def respond(error: errors.GatewayError) -> web.Response:
    """Write the answer of an error."""
    status = status_of(error)
    retry_after = error.retry_after if error.retry_after is not None else _DEFAULT_RETRY_AFTER.get(status)
    fields = error.fields if isinstance(error, errors.Unprocessable) else ()
    limit = error.limit if isinstance(error, errors.LimitReached) else None
    response = _problem(
        status,
        problem(status, error.title, error.detail, invalid_fields=fields, retry_after=retry_after, limit=limit),
    )
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    if limit is not None and (refusing := rate_headers.refusing(limit, retry_after or 1)) is not None:
        response.headers["RateLimit-Policy"] = refusing.policy
        response.headers["RateLimit"] = refusing.state
        # Of what this request wanted there is none now, whatever is left of a budget.
        response.headers["ratelimit-remaining"] = "0"
        response.headers["ratelimit-reset"] = str(refusing.seconds)
    if isinstance(error, errors.UpstreamUncertain):
        # Clients of the Stainless family repeat a create after a 504, and would pay for it again, unless told not to.
        response.headers["X-Should-Retry"] = "false"
    if status == HTTPStatus.UNAUTHORIZED:
        # RFC 9110, 11.6.1: a 401 names the way to authenticate.
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def respond_http(error: web.HTTPException) -> web.Response:
    """Write the answer of an error that aiohttp raised by itself."""
    match error:
        case web.HTTPNotFound():
            return respond(errors.NotFound())
        case web.HTTPMethodNotAllowed():
            body = problem(405, "Method not allowed", f'Method "{error.method}" not allowed.')
            response = _problem(405, body)
            response.headers["Allow"] = ", ".join(sorted({*error.allowed_methods, "OPTIONS"}))
            return response
        case web.HTTPRequestEntityTooLarge():
            return respond(errors.BodyTooLarge("The request's body is larger than the gateway takes."))
        case _:
            return _problem(error.status, problem(error.status, error.reason, error.reason + "."))


def crash() -> web.Response:
    """Write the answer of a defect of ours. What went wrong is for the log."""
    return _problem(500, problem(500, "Internal server error", "The gateway failed to answer this request."))


def malformed(status: int) -> web.Response:
    """Write the answer to bytes that are not a request."""
    response = _problem(status, problem(status, HTTPStatus(status).phrase, _MALFORMED.get(status, _NOT_HTTP)))
    # There is no application yet that would add what every answer carries.
    response.headers["X-Request-Id"] = secrets.token_hex(12)
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cache-Control"] = "no-store"
    response.headers["Server"] = SERVER
    response.force_close()
    return response


def pass_on(answer: Answer) -> web.Response:
    """Write upstream's answer as it is."""
    return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)


def _problem(status: int, body: bytes) -> web.Response:
    return web.Response(status=status, body=body, content_type=CONTENT_TYPE)
