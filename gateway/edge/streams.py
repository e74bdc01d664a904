"""Streams: upstream's events, byte for byte, to whoever holds the ticket."""

import asyncio
import logging
from collections import Counter
from contextlib import suppress

from aiohttp import web

from gateway.core import replay
from gateway.core.event_log import EventLog
from gateway.core.records import Sight
from gateway.edge import links
from gateway.edge.keys import HUB, METRICS, PREDICTIONS, SETTINGS, STREAM_ORIGINS, TEAM_ORIGINS
from gateway.edge.sending import CallerLeft, send
from gateway.errors import NotFound, RateLimited, UpstreamUnavailable
from gateway.service.stream_hub import Channel

logger = logging.getLogger(__name__)

_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",
    # nginx would collect events into blocks otherwise.
    "X-Accel-Buffering": "no",
    # The URL is the permission: it must not leak into another site's logs.
    "Referrer-Policy": "no-referrer",
}
# The first bytes are those of upstream's own streams (ref 4). Comments keep the connection alive; no client shows them.
_GREETING = b": hi\n\n"
_HEARTBEAT = b":\n\n"
_GONE = '{"detail":"The beginning of this stream is no longer kept. Read the prediction instead."}'
_RETRY_SECONDS = 1
_BLOCK = 64 * 1024


class OpenStreams:
    """The streams that are open: bounded in all and for each team, and ended together at shutdown."""

    def __init__(self, *, max_total: int, max_per_team: int) -> None:
        self._max_total = max_total
        self._max_per_team = max_per_team
        self._tasks: set[asyncio.Task[object]] = set()
        self._by_team: Counter[str] = Counter()
        self.closing = False

    def enter(self, team: str) -> None:
        """Count the current task's stream in.

        Raise `RateLimited` when there are too many, `UpstreamUnavailable` at the gateway's end.
        """
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
    sight = await request.app[PREDICTIONS].by_ticket(request.match_info["ticket"], links.page_of(request))
    team = sight.prediction.team
    request[STREAM_ORIGINS] = request.app[TEAM_ORIGINS].get(team, ())
    if sight.run.stream_url is None:
        raise NotFound
    streams = request.app[OPEN_STREAMS]
    streams.enter(team)
    downstream = request.app[METRICS].sse_streams.labels("downstream")
    downstream.inc()
    try:
        return await _relay(request, sight)
    finally:
        downstream.dec()
        streams.leave(team)


async def _relay(request: web.Request, sight: Sight) -> web.StreamResponse:
    """Write history, then what is live, until `done`; a reader who has left, or fallen behind, is let go."""
    response = web.StreamResponse(headers=_HEADERS)
    await response.prepare(request)
    try:
        await send(response, _GREETING)
        channel = request.app[HUB].open(sight)
        await _follow(request, response, sight, channel)
    except asyncio.CancelledError:
        if not request.app[OPEN_STREAMS].closing:
            raise
        # Shutdown: what has been written is whole; the reader comes back for the rest.
    except (CallerLeft, ConnectionError):
        # That cancels nothing.
        return response
    with suppress(ConnectionError):
        await response.write_eof()
    return response


async def _follow(request: web.Request, response: web.StreamResponse, sight: Sight, channel: Channel) -> None:
    heartbeat = request.app[SETTINGS].heartbeat_seconds
    metrics, predictions = request.app[METRICS], request.app[PREDICTIONS]
    log = channel.log
    cursor = _start(log, _last_event_id(request))
    while True:
        if (left_at := predictions.left_at(sight)) is not None:
            # To this caller the prediction has ended, whatever the run that it shared does.
            return await send(response, replay.canceled_done(left_at).raw)
        if log.is_behind(cursor):
            # Too slow for what is kept, or too late: what is missing cannot be had, and that is said.
            return await send(response, replay.frame("error", log.last_id or "0:0", _GONE).raw)
        data, cursor = log.read(cursor, _BLOCK)
        if data:
            await send(response, data)
            metrics.sse_bytes.inc(len(data))
        elif channel.is_complete:
            return None
        elif not await channel.news(heartbeat):
            await send(response, _HEARTBEAT)


def _start(log: EventLog, last_event_id: str | None) -> int:
    """Return where a reader begins: after its last event, or at the start of what there is."""
    if last_event_id is None:
        return log.start()
    found = log.after(last_event_id)
    return found if isinstance(found, int) else log.start()


def _last_event_id(request: web.Request) -> str | None:
    """Read where to resume: a header from EventSource, a query from those that cannot set one."""
    value = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
    return value if value and value.isprintable() and len(value) <= 100 else None
