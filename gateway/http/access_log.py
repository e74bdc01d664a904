"""The access log: one line per request, written when the response is complete; for a stream, when it ends.

A line has the team and key id, the route, the outcome and the prediction. It never has the raw path, the query, a
ticket, a key or a body: a route appears as its template, a key as its id.
"""

import logging
from typing import Final

from aiohttp import web

from gateway import logs
from gateway.access.rules.api_keys import REDACTED
from gateway.domain import tags, trace_context
from gateway.domain.records import PredictionView
from gateway.domain.teams import Caller
from gateway.http.keys import (
    ALIAS,
    CALLER,
    HOLD,
    PRESENTED_KEY,
    REQUEST_ID,
    SENT_BYTES,
    SENT_EVENTS,
    TRACE_ID,
    UPSTREAM_SECONDS,
    VIEW,
)
from gateway.http.request import Request
from gateway.http.response import Response
from gateway.http.route import Route

logger = logging.getLogger("gateway.access")

_LONGEST_NAME: Final = 200
"""Longest name of a user or a target in the log. A request that was refused may carry any text."""

UNMATCHED: Final = "unmatched"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "QUERY", "OPTIONS", "PUT"})
"""Methods that appear by name in metrics and spans; all others are one value, which bounds the cardinality."""
_RECURRING: Final = (
    "team", "key", "key_name", "user", "route", "path", "target", "method", "status", "cache", "held_by",
)  # fmt: skip
_NUMBERS: Final = ("seconds", "upstream_seconds", "held_seconds", "bytes")
_FORM: Final = logs.Form(recurring=_RECURRING, ids=("request_id",), numbers=_NUMBERS)
_FORM_WITH_PREDICTION: Final = logs.Form(
    recurring=(*_RECURRING, "run"), ids=("request_id", "prediction"), numbers=_NUMBERS
)
_CACHE_RESULTS: Final = (("hit", "; hit"), ("joined", "; collapsed"), ("bypass", "fwd=bypass"), ("miss", "fwd=miss"))


def cache_result(response: web.StreamResponse | None) -> str | None:
    """Return the cache result of a response: hit, joined, bypass or miss; `None` if the cache was not involved."""
    if response is None:
        return None
    status = (response.fields if isinstance(response, Response) else response.headers).get("Cache-Status")
    return result_of(status) if status is not None else None


def result_of(cache_status: str) -> str | None:
    """Return the cache result that a `Cache-Status` header names."""
    for result, mark in _CACHE_RESULTS:
        if mark in cache_status:
            return result
    return None


def log_request(
    request: Request,
    response: web.StreamResponse | None,
    route: Route | None,
    status: int,
    seconds: float,
    refused_origin: str | None = None,
) -> None:
    """Log a completed request. `response` is `None` if the client disconnected before there was one.

    `refused_origin` is the origin of the page that sent it, as `cors.shown` writes it, if CORS does not let the page
    read the response.
    """
    state = request.state
    caller, about, hold = state.get(CALLER), state.get(VIEW), state.get(HOLD)
    user, target = user_and_target(request)
    recurring = (
        # Stream requests carry no key; they count for the team that owns the prediction.
        caller.team.name if caller else about.prediction.team if about else None,
        caller.key_id if caller else None,
        caller.key_name or None if caller else None,
        user,
        route.name if route else UNMATCHED,
        route.template if route else None,
        target,
        request.method,
        status,
        cache_result(response),
        hold.by if hold else None,
    )
    numbers = (
        round(seconds, 6),
        round(state.get(UPSTREAM_SECONDS, 0.0), 6),
        round(hold.seconds, 6) if hold else 0.0,
        _bytes_of(response),
    )
    more: dict[str, object] = {}
    if about is not None and about.prediction.tags:
        more["tags"] = tags.mapping(about.prediction.tags)
    if (trace_id := _trace_id(request)) is not None:
        more["trace_id"] = trace_id
    if ALIAS in state:
        more["alias"] = state[ALIAS][0][:_LONGEST_NAME]
    if refused_origin is not None:
        more["origin"], more["refused"] = refused_origin, "origin not listed"
    if response is not None and not isinstance(response, Response) and SENT_EVENTS in response:
        more["events"] = response[SENT_EVENTS]
    if about is None:
        line = logs.Line(_FORM, recurring, (state[REQUEST_ID],), numbers, more)
    else:
        ids = (state[REQUEST_ID], about.prediction.id)
        line = logs.Line(_FORM_WITH_PREDICTION, (*recurring, about.run.id), ids, numbers, more)
    logs.info(logger, "request", line)


def user_and_target(request: Request) -> tuple[str | None, str | None]:
    """Return whom a request was for and the model or deployment that it named, as the log has them."""
    caller, about = request.get(CALLER), request.get(VIEW)
    target = about.run.target[:_LONGEST_NAME] if about else _named_target(request)
    return _user(request, caller, about), target


def _user(request: Request, caller: Caller | None, about: PredictionView | None) -> str | None:
    """Return whom a request was for: as recorded with the prediction, else as its key or header says."""
    given = about.prediction.user if about is not None else None
    if given is None and caller is not None:
        given = caller.user if caller.is_public else caller.user or request.headers.get("Gateway-User")
    if given and (presented := request.get(PRESENTED_KEY)) and presented in given.encode("utf-8", "surrogateescape"):
        # The request was refused for it, but it is logged all the same.
        return REDACTED
    return given[:_LONGEST_NAME] if given else None


def _named_target(request: web.Request) -> str | None:
    """Return the model or deployment that the address names, for requests without a prediction."""
    if ALIAS in request:
        return request[ALIAS][1][:_LONGEST_NAME]
    owner, name = (request.match_info.get(part) for part in ("owner", "name"))
    return f"{owner}/{name}"[:_LONGEST_NAME] if owner and name else None


def _trace_id(request: web.Request) -> str | None:
    """Return the trace id: the gateway's if tracing is on, else the one in the request's `traceparent`."""
    if TRACE_ID in request:
        return request[TRACE_ID]
    given = request.headers.get("traceparent")
    context = trace_context.parse(given) if given else None
    return context.trace_id if context else None


def _bytes_of(response: web.StreamResponse | None) -> int | None:
    """Return the size of the body: as counted for a streamed body, else its content length."""
    if response is None:
        return None
    if isinstance(response, Response):
        return response.content_length
    sent: int | None = response.get(SENT_BYTES)
    return response.content_length if sent is None else sent
