"""Streams: upstream's events, byte for byte, to whoever holds the ticket."""

import asyncio
import logging
import re
from collections import Counter
from contextlib import suppress

from aiohttp import web

from gateway.core import documents
from gateway.core.records import Sight
from gateway.edge.keys import METRICS, PREDICTIONS, STREAM_ORIGINS, STREAMS, TEAM_ORIGINS
from gateway.edge.sending import CallerLeft, send
from gateway.errors import GatewayError, NotFound, RateLimited, UpstreamUnavailable

logger = logging.getLogger(__name__)

_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",
    # nginx would collect events into blocks otherwise.
    "X-Accel-Buffering": "no",
    # The URL is the permission: it must not leak into another site's logs.
    "Referrer-Policy": "no-referrer",
}
_GREETING = b": hi\n\n"
_CANCELED = b'event: done\nid: %d:0\ndata: {"reason":"canceled"}\n\n'
_RETRY_SECONDS = 1
_DONE = re.compile(rb"(?:^|\n)event: ?done\r?\n(?:[^\r\n]+\r?\n)*\r?\n")
_LONGEST_DONE = 1024


class OpenStreams:
    """The streams that are open: bounded in all and for each team, and ended together at shutdown."""

    def __init__(self, *, max_total: int, max_per_team: int) -> None:
        self._max_total = max_total
        self._max_per_team = max_per_team
        self._tasks: set[asyncio.Task[object]] = set()
        self._by_team: Counter[str] = Counter()
        self.closing = False

    def enter(self, team: str) -> None:
        """Count the current task's stream in. Raise `RateLimited` if it is one too many, else as at shutdown."""
        if self.closing:
            raise UpstreamUnavailable("The gateway is shutting down.", retry_after=_RETRY_SECONDS)
        if len(self._tasks) >= self._max_total or self._by_team[team] >= self._max_per_team:
            raise RateLimited("Too many streams are open.", retry_after=_RETRY_SECONDS)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._by_team[team] += 1

    def leave(self, team: str) -> None:
        """Count the current task's stream out."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.discard(task)
        self._by_team[team] -= 1
        if not self._by_team[team]:
            del self._by_team[team]

    def end(self) -> None:
        """End every stream at once: readers come back, to the next process, with their last event's id."""
        self.closing = True
        for task in self._tasks:
            task.cancel()


OPEN_STREAMS = web.AppKey("open_streams", OpenStreams)


async def read_stream(request: web.Request) -> web.StreamResponse:
    """`GET /v1/streams/{ticket}` and `GET /v1/files/{ticket}`."""
    sight = await request.app[PREDICTIONS].by_ticket(request.match_info["ticket"])
    team = sight.prediction.team
    request[STREAM_ORIGINS] = request.app[TEAM_ORIGINS].get(team, ())
    if sight.run.stream_url is None:
        raise NotFound
    streams = request.app[OPEN_STREAMS]
    streams.enter(team)
    try:
        return await _relay(request, sight, sight.run.stream_url)
    finally:
        streams.leave(team)


async def _relay(request: web.Request, sight: Sight, url: str) -> web.StreamResponse:
    response = web.StreamResponse(headers=_HEADERS)
    metrics = request.app[METRICS]
    if sight.prediction.canceled_at is not None and documents.shown_status(sight).is_terminal:
        await response.prepare(request)
        with suppress(ConnectionError):
            await response.write(_GREETING + _CANCELED % int(sight.prediction.canceled_at))
        return response
    metrics.sse_streams.labels("downstream").inc()
    try:
        async with request.app[STREAMS].open(url, _last_event_id(request)) as chunks:
            await response.prepare(request)
            tail = b""
            async for chunk in chunks:
                await send(response, chunk)
                metrics.sse_bytes.inc(len(chunk))
                # Upstream leaves the connection open after `done`, for the reader to close (ref 4).
                if _DONE.search(tail := (tail + chunk)[-_LONGEST_DONE:]):
                    break
    except asyncio.CancelledError:
        if not request.app[OPEN_STREAMS].closing:
            raise
        # Shutdown: what has been written is whole; the reader comes back for the rest.
    except (CallerLeft, ConnectionError):
        # The reader has left. That cancels nothing.
        return response
    except GatewayError as exc:
        if not response.prepared:
            raise
        logger.warning("a stream broke off", extra={"prediction": sight.prediction.id, "reason": exc.detail})
    finally:
        metrics.sse_streams.labels("downstream").dec()
    if response.prepared:
        with suppress(ConnectionError):
            await response.write_eof()
    return response


def _last_event_id(request: web.Request) -> str | None:
    """Read where to resume: a header from EventSource, a query from those that cannot set one."""
    value = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
    return value if value and value.isprintable() and len(value) <= 100 else None
