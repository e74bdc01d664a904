"""The headers that every response has: request id, CORS, rate limits, timing, and what browsers must not do.

There are two ways to write them. `add_common_headers` adds them to the headers of any response of aiohttp's, streams
included. `common_lines` returns the same as text, for responses that `response.py` writes; it takes a third of the
time. `tests/gateway/test_wire_headers.py` compares the two.
"""

import random
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from gateway.http import cors, request_limits
from gateway.http.errors import SERVER
from gateway.http.keys import HOLD, REQUEST_ID, RUN_SECONDS, STARTED, UPSTREAM_SECONDS
from gateway.http.request import Request

_FIXED_LINES = f"X-Content-Type-Options: nosniff\r\nServer: {SERVER}\r\n"


def add_common_headers(request: Request, response: web.StreamResponse) -> None:
    """Add the common headers: request id, CORS, rate limits, timing, and `Cache-Control: no-store` unless it is set."""
    headers = response.headers
    # A request that is refused before the pipeline has begun has no id yet.
    headers["X-Request-Id"] = request.get(REQUEST_ID) or new_id()
    cors.add_headers(request, headers)
    request_limits.add_headers(request, headers)
    headers.setdefault("Cache-Control", "no-store")
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Server"] = SERVER
    if STARTED in request and "Server-Timing" not in headers:
        headers["Server-Timing"] = _timing(request.state)


def common_lines(request: Request, vary: str, cache_control: str) -> str:
    """Return the common headers as lines of a response's head, for a response without headers of these names."""
    state = request.state
    allowing = cors.lines(request) if "Origin" in request.headers else ""
    rates = request_limits.lines(request) if request_limits.BUCKETS in state else ""
    return (
        f"X-Request-Id: {state[REQUEST_ID]}\r\nVary: {vary}\r\n{allowing}{rates}"
        f"Cache-Control: {cache_control}\r\n{_FIXED_LINES}Server-Timing: {_timing(state)}\r\n"
    )


def _timing(state: Mapping[Any, Any]) -> str:
    """Return the value of `Server-Timing`."""
    # The time of a create that was held, or waited for its run, is not the gateway's own.
    upstream, run, hold = state.get(UPSTREAM_SECONDS, 0.0), state.get(RUN_SECONDS), state.get(HOLD)
    own = time.perf_counter() - state[STARTED] - upstream - (run or 0.0)
    timing = ""
    if hold is not None and hold.seconds:
        own -= hold.seconds
        timing = f'held;dur={hold.seconds * 1000:.1f};desc="{hold.by}", '
    timing += f"gateway;dur={max(0.0, own) * 1000:.1f}"
    if run is not None:
        timing += f", run;dur={run * 1000:.1f}"
    return timing + (f", upstream;dur={upstream * 1000:.1f}" if upstream else "")


def new_id() -> str:
    """Return a new request id."""
    # The id is not a secret, so a fast generator that is not cryptographic is enough.
    return random.randbytes(12).hex()  # noqa: S311
