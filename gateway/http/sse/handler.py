"""Event streams: upstream's events, byte for byte. The ticket in the URL is the permission.

Responses:

- 200 and the events: history first, then live events, `done` last, comments as heartbeats. `Last-Event-ID` (or the
  queries `last_event_id`, `lastEventId`) resumes after an event, also after a restart of the gateway.
- 200, an `error` event and `done`, if the stream cannot be resumed without a gap (`gateway.streams.rules.resume`). All
  of Replicate's clients stop at `done`.
- 204 to a client that reconnects after it received the end: `EventSource`, which always reconnects, then stops.
- HEAD: the headers of the stream, without subscribing.
- During shutdown the current block is completed, then `retry:` tells browsers to reconnect after a second.
"""

import time
from collections.abc import Mapping

from aiohttp import web

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import UpstreamObserver
from gateway.domain.records import PredictionView
from gateway.errors import NotFound
from gateway.http import base_url, request_limits
from gateway.http.keys import (
    CLOCK,
    HUB,
    METRICS,
    PREDICTIONS,
    SENT_BYTES,
    SENT_EVENTS,
    SETTINGS,
    STARTED,
    STREAM_ORIGINS,
    VIEW,
)
from gateway.http.response_body import ClientDisconnected
from gateway.http.sse.connection import HEADERS, Block, Reader
from gateway.http.sse.fan_out import BLOCK_BYTES
from gateway.http.sse.registry import OPEN_STREAMS
from gateway.streams.channel import Channel
from gateway.streams.rules import replay, resume
from gateway.streams.rules.event_log import LONG
from gateway.streams.rules.resume import Complete, Gap, NotYet, ResumeAt

# Upstream's streams start with the same bytes (docs/replicate-api.md, Streaming). Clients ignore comments.
_GREETING = Block.of(b": hi\n\n")
_RETRY = Block.of(b"retry: 1000\n\n")
_CLIENT_CLOSED_REQUEST = 499
_NOT_YET_SECONDS = 30.0
"""How long to wait for an event that a client has seen and the log does not have: upstream repeats it immediately."""


async def read_stream(request: web.Request) -> web.StreamResponse:
    """Handle `GET /v1/streams/{ticket}` and `GET /v1/files/{ticket}`."""
    request[VIEW] = await request.app[PREDICTIONS].by_ticket(request.match_info["ticket"], base_url.page_of(request))
    team = request[VIEW].prediction.team
    request[STREAM_ORIGINS] = request.app[SETTINGS].value.team_origins.get(team, ())
    if request[VIEW].run.stream_url is None:
        raise NotFound
    if _last_event_id(request) is None:
        # Resuming is not counted as a request: EventSource does not reconnect after a 429.
        await request_limits.admit_stream(request, request[VIEW].prediction)
    if request.method == "HEAD":
        return web.StreamResponse(headers=HEADERS)
    downstream = request.app[METRICS].sse_streams.labels("downstream")
    streams = request.app[OPEN_STREAMS]
    streams.take_place(team)
    downstream.inc()
    try:
        opened = await _open(request)
        if isinstance(opened, web.Response):
            return opened
        try:
            outcome = await opened.run()
            await opened.reader.finish()
        except ClientDisconnected:
            # The prediction goes on.
            outcome = "stalled" if opened.reader.is_aborted and not opened.reader.is_closing else "left"
        finally:
            opened.reader.release()
            streams.detach(opened.channel, opened.reader)
        return opened.ended(outcome)
    finally:
        downstream.dec()
        streams.leave_place(team)


async def _open(request: web.Request) -> "web.Response | _StreamWriter":
    """Send the response headers and return what writes the events; or a response, if there is nothing to write."""
    channel = await request.app[HUB].open(request[VIEW], _links(request, request[VIEW]))
    streams, metrics = request.app[OPEN_STREAMS], request.app[METRICS]
    # The document is not needed any more, and can be large.
    view = request[VIEW] = streams.shared(request[VIEW].without_document())
    last_event_id = _last_event_id(request)
    if isinstance(resume.resume(channel.log, last_event_id), Complete):
        return web.Response(status=204, headers={"Cache-Control": "no-store"})
    try:
        reader = await Reader.open(request, stall_seconds=streams.stall_seconds)
    except ConnectionError:
        # The client disconnected before the response headers were sent.
        metrics.stream_ended("left")
        return web.Response(status=_CLIENT_CLOSED_REQUEST)
    reader.requested_at = request[STARTED]
    metrics.overhead("stream_open", time.perf_counter() - request[STARTED])
    streams.attach(channel, reader, view)
    return _StreamWriter(reader, channel, last_event_id, request.app[CLOCK], metrics)


def _links(request: web.Request, view: PredictionView) -> Mapping[str, str]:
    """Return the links to stored copies that replace upstream's links to output files, by upstream's link."""
    return request.app[PREDICTIONS].copy_links(view, base_url.base_of(request)) if view.run.copies else {}


class _StreamWriter:
    """Writes the events that the fan-out does not write: history, the end, and whatever a slow reader is behind."""

    __slots__ = ("_clock", "_last_event_id", "_observer", "_started_at", "channel", "reader")

    def __init__(
        self, reader: Reader, channel: Channel, last_event_id: str | None, clock: Clock, observer: UpstreamObserver
    ) -> None:
        self.reader = reader
        self.channel = channel
        self._last_event_id = last_event_id
        self._clock = clock
        self._observer = observer
        self._started_at = clock.monotonic()

    async def run(self) -> str:
        """Write until the stream ends for this reader; return the outcome, as `UpstreamObserver.stream_ended` names it.

        Raise `ClientDisconnected`. May be cancelled.
        """
        reader = self.reader
        reader.write(_GREETING)
        while True:
            await reader.drain()
            if reader.write_rest():
                continue
            if reader.canceled_at is not None:
                # The prediction was canceled for this caller; a run that it shared may go on.
                reader.write(Block.of(replay.canceled_done(reader.canceled_at).raw))
                return "canceled"
            if reader.is_closing:
                reader.write(_RETRY)
                return "closing"
            match self._next_step():
                case Complete():
                    return "done"
                case Gap(detail):
                    reader.write(Block.of(b"".join(event.raw for event in replay.lost(self._clock.now(), detail))))
                    return "lost"
                case NotYet():
                    await reader.live()
                case ResumeAt(cursor):
                    if not self._write_next(cursor):
                        if self.channel.is_complete:
                            return "done"
                        await reader.live()

    def _next_step(self) -> ResumeAt | NotYet | Gap | Complete:
        """Decide where the reader continues."""
        if self.reader.cursor >= 0:
            is_behind = self.channel.log.is_behind(self.reader.cursor)
            return Gap(resume.REST_DROPPED) if is_behind else ResumeAt(self.reader.cursor)
        place = resume.resume(self.channel.log, self._last_event_id)
        if isinstance(place, NotYet) and self._clock.monotonic() - self._started_at >= _NOT_YET_SECONDS:
            return Gap(resume.UNKNOWN)
        return place

    def _write_next(self, cursor: int) -> bool:
        """Write the next block; return false if there is none."""
        self.reader.start_at(cursor)
        data, self.reader.cursor = self.channel.log.read(cursor, BLOCK_BYTES)
        if not data:
            return False
        if len(data) > LONG:
            self.reader.begin(data)
        else:
            self.reader.write(Block.of(data))
        self.reader.report_first_event(self._observer)
        self._observer.events_sent(len(data))
        return True

    def ended(self, outcome: str) -> web.StreamResponse:
        """Count the end of the stream, and return its response with what was sent."""
        self._observer.stream_ended(outcome)
        if self._last_event_id is not None:
            self._observer.stream_resumed("lost" if outcome == "lost" else "resumed")
        response = self.reader.response
        response[SENT_BYTES], response[SENT_EVENTS] = self.reader.sent_bytes, self.reader.sent_events
        return response


def _last_event_id(request: web.Request) -> str | None:
    """Read the id to resume after: from the header, or from the query for clients that cannot set the header."""
    query = request.query
    value = request.headers.get("Last-Event-ID") or query.get("last_event_id") or query.get("lastEventId")
    return value if value and value.isprintable() and len(value) <= 100 else None
