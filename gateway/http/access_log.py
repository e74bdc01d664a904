"""The access log: one line for each request, told when it is over; for a stream, when the stream is.

It says who asked, through which route, how it ended and what it was about. Never the path as it was spelled, the query,
a ticket, a key or a body: routes are named by their template, keys by their id.
"""

import logging
from typing import Final

from aiohttp import web

from gateway.domain import trace_context
from gateway.http.keys import ABOUT, CALLER, REQUEST_ID, SENT_BYTES, SENT_EVENTS, TRACE_ID, UPSTREAM_SECONDS
from gateway.http.route import Route

logger = logging.getLogger("gateway.access")

_LONGEST_NAME: Final = 200
"""Longest name of a user or a target in the log. A request that was refused may carry any text."""

UNMATCHED: Final = "unmatched"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PATCH", "DELETE", "QUERY", "OPTIONS", "PUT"})
"""Methods that are told by name where words are from a closed set."""
_CACHE_RESULTS: Final = (("hit", "; hit"), ("joined", "; collapsed"), ("bypass", "fwd=bypass"), ("miss", "fwd=miss"))


def cache_result(response: web.StreamResponse | None) -> str | None:
    """Say how the cache had to do with an answer: hit, joined, bypass or miss; `None` if it had not."""
    status = response.headers.get("Cache-Status") if response is not None else None
    return result_of(status) if status is not None else None


def result_of(cache_status: str) -> str | None:
    """Say the same of the header alone."""
    return next((result for result, mark in _CACHE_RESULTS if mark in cache_status), None)


def log_request(
    request: web.Request, response: web.StreamResponse | None, route: Route | None, status: int, seconds: float
) -> None:
    """Tell of a request that is over. Without `response` its caller left before there was one."""
    if not logger.isEnabledFor(logging.INFO):
        return
    caller, about = request.get(CALLER), request.get(ABOUT)
    fields: dict[str, object] = {
        "request_id": request[REQUEST_ID],
        # Who reads a stream shows no key: the stream is the team's whose prediction it is.
        "team": caller.team.name if caller else about.prediction.team if about else None,
        "key": caller.key_id if caller else None,
        "key_name": caller.key_name or None if caller else None,
        "user": _user(request),
        "route": route.name if route else UNMATCHED,
        "path": route.template if route else None,
        "target": about.run.target[:_LONGEST_NAME] if about else _named_target(request),
        "method": request.method,
        "status": status,
        "cache": cache_result(response),
        "seconds": round(seconds, 6),
        "upstream_seconds": round(request.get(UPSTREAM_SECONDS, 0.0), 6),
        "bytes": _bytes_of(response),
    }
    if (trace_id := _trace_id(request)) is not None:
        fields["trace_id"] = trace_id
    if about is not None:
        fields["prediction"], fields["run"] = about.prediction.id, about.run.id
    if response is not None and SENT_EVENTS in response:
        fields["events"] = response[SENT_EVENTS]
    # As `logger.info` does, but for looking up which line of the source this is: it is always this one.
    record = logging.LogRecord(logger.name, logging.INFO, __file__, 0, "request", None, None)
    vars(record).update(fields)
    logger.handle(record)


def _user(request: web.Request) -> str | None:
    """Return whom a request was for: as recorded with the prediction, else as its key or header says."""
    caller, about = request.get(CALLER), request.get(ABOUT)
    given = about.prediction.user if about is not None else None
    if given is None and caller is not None:
        given = caller.user if caller.is_public else caller.user or request.headers.get("Gateway-User")
    return given[:_LONGEST_NAME] if given else None


def _named_target(request: web.Request) -> str | None:
    """Return the model or deployment that the address names, for requests without a prediction."""
    owner, name = (request.match_info.get(part) for part in ("owner", "name"))
    return f"{owner}/{name}"[:_LONGEST_NAME] if owner and name else None


def _trace_id(request: web.Request) -> str | None:
    """Return the trace that the request belongs to: ours where traces are kept, else the one that its caller names."""
    if TRACE_ID in request:
        return request[TRACE_ID]
    given = request.headers.get("traceparent")
    context = trace_context.parse(given) if given else None
    return context.trace_id if context else None


def _bytes_of(response: web.StreamResponse | None) -> int | None:
    """Return the size of the body. What was sent piece by piece has been counted; the rest is known beforehand."""
    if response is None:
        return None
    sent: int | None = response.get(SENT_BYTES)
    return response.content_length if sent is None else sent
