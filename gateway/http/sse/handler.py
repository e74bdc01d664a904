"""Streams: upstream's events, byte for byte, to whoever holds the ticket.

What a caller is answered:

- 200 and the events: history first, then what is live, `done` last, comments in between. `Last-Event-ID` (or the query
  `last_event_id`) goes on after an event, in this process or the next.
- Where that cannot be had without a gap (`core.resuming`): 200, an `error` event that says so, and `done`, which ends
  every client of Replicate's.
- 204 to a caller who comes back after the end was told: `EventSource`, which comes back for ever, then stops.
- At the gateway's end: what was begun is finished, then `retry:` asks browsers to come back in a second.
"""

import time
from collections.abc import Mapping
from functools import partial

from aiohttp import web

from gateway.domain.ports.clock import Clock
from gateway.domain.records import PredictionView
from gateway.errors import NotFound
from gateway.http import base_url, request_limits
from gateway.http.keys import (
    ABOUT,
    BEGAN,
    CLOCK,
    HUB,
    METRICS,
    PREDICTIONS,
    SENT_BYTES,
    SENT_EVENTS,
    SETTINGS,
    STREAM_ORIGINS,
)
from gateway.http.response_body import CallerLeft
from gateway.http.sse.connection import Block, Reader
from gateway.http.sse.fan_out import BLOCK_BYTES
from gateway.http.sse.registry import OPEN_STREAMS
from gateway.streams.channel import Channel
from gateway.streams.ports import StreamObserver
from gateway.streams.rules import replay, resume
from gateway.streams.rules.resume import Complete, Gap, NotYet, ResumeAt

# The first bytes are those of upstream's own streams (docs/replicate-api.md, Streaming). Comments keep the connection
# alive; no client shows them.
_GREETING = Block.of(b": hi\n\n")
_COME_BACK = Block.of(b"retry: 1000\n\n")
_LEFT = 499
_PATIENCE_SECONDS = 30.0
"""How long an event is waited for that a reader has seen and the log has not: upstream tells it again at once."""


async def read_stream(request: web.Request) -> web.StreamResponse:
    """`GET /v1/streams/{ticket}` and `GET /v1/files/{ticket}`."""
    view = await request.app[PREDICTIONS].by_ticket(request.match_info["ticket"], base_url.page_of(request))
    request[ABOUT], team = view, view.prediction.team
    request[STREAM_ORIGINS] = request.app[SETTINGS].now.team_origins.get(team, ())
    if view.run.stream_url is None:
        raise NotFound
    if _last_event_id(request) is None:
        # Going on after a break is no second request: a page's EventSource would take a 429 for the end.
        request_limits.admit_stream(request, view.prediction)
    downstream = request.app[METRICS].sse_streams.labels("downstream")
    with request.app[OPEN_STREAMS].place(team):
        downstream.inc()
        try:
            return await _answer(request, view)
        finally:
            downstream.dec()


async def _answer(request: web.Request, view: PredictionView) -> web.StreamResponse:
    channel = await request.app[HUB].open(view, _links(request, view))
    last_event_id = _last_event_id(request)
    if isinstance(resume.resume(channel.log, last_event_id), Complete):
        return web.Response(status=204, headers={"Cache-Control": "no-store"})
    streams, metrics = request.app[OPEN_STREAMS], request.app[METRICS]
    try:
        reader = await Reader.begin(request, patience_seconds=streams.patience_seconds)
    except ConnectionError:
        # Gone before there was an answer: no defect, and nobody is told.
        metrics.stream_ended("left")
        return web.Response(status=_LEFT)
    began = request[BEGAN]
    metrics.overhead("stream_open", time.perf_counter() - began)
    reader.first_event = lambda: metrics.first_event(time.perf_counter() - began)
    with streams.reading(channel, reader, view.prediction.team, partial(request.app[PREDICTIONS].canceled_at, view)):
        try:
            how = await _Telling(reader, channel, last_event_id, request.app[CLOCK], metrics).tell()
            await reader.end()
        except CallerLeft:
            # That cancels nothing.
            how = "stalled" if reader.is_cut_off and not reader.is_ending else "left"
        finally:
            reader.let_go()
    metrics.stream_ended(how)
    if last_event_id is not None:
        metrics.stream_resumed("lost" if how == "lost" else "resumed")
    reader.response[SENT_BYTES], reader.response[SENT_EVENTS] = reader.sent_bytes, reader.told
    return reader.response


def _links(request: web.Request, view: PredictionView) -> Mapping[str, str]:
    """Return what stands in for upstream's links to files, where these have given way to copies."""
    return request.app[PREDICTIONS].copy_links(view, base_url.base_of(request)) if view.run.copies else {}


class _Telling:
    """One reader's own task."""

    __slots__ = ("_began_at", "_channel", "_clock", "_last_event_id", "_observer", "_reader")

    def __init__(
        self, reader: Reader, channel: Channel, last_event_id: str | None, clock: Clock, observer: StreamObserver
    ) -> None:
        self._reader = reader
        self._channel = channel
        self._last_event_id = last_event_id
        self._clock = clock
        self._observer = observer
        self._began_at = clock.monotonic()

    async def tell(self) -> str:
        """Write history, then what is live, until there is no more for this reader; return what ended it."""
        reader = self._reader
        reader.write(_GREETING)
        while True:
            await reader.taken()
            if reader.left_at is not None:
                # To this caller the prediction has ended, whatever the run that it shared does.
                reader.write(Block.of(replay.canceled_done(reader.left_at).raw))
                return "canceled"
            if reader.is_ending:
                reader.write(_COME_BACK)
                return "closing"
            match self._place():
                case Complete():
                    return "done"
                case Gap(detail):
                    reader.write(Block.of(b"".join(event.raw for event in replay.lost(self._clock.now(), detail))))
                    return "lost"
                case NotYet():
                    await reader.turn()
                case ResumeAt(cursor):
                    if not await self._go_on(cursor):
                        return "done"

    def _place(self) -> ResumeAt | NotYet | Gap | Complete:
        """Say where the reader goes on from."""
        if self._reader.cursor >= 0:
            is_behind = self._channel.log.is_behind(self._reader.cursor)
            return Gap(resume.REST_GONE) if is_behind else ResumeAt(self._reader.cursor)
        place = resume.resume(self._channel.log, self._last_event_id)
        if isinstance(place, NotYet) and self._clock.monotonic() - self._began_at >= _PATIENCE_SECONDS:
            return Gap(resume.UNKNOWN)
        return place

    async def _go_on(self, cursor: int) -> bool:
        """Write the next block, or wait for news if there is none; return whether there may be more."""
        self._reader.begin_at(cursor)
        data, self._reader.cursor = self._channel.log.read(cursor, BLOCK_BYTES)
        if data:
            self._reader.write(Block.of(data))
            self._reader.note_events()
            self._observer.events_sent(len(data))
        elif self._channel.is_complete:
            return False
        else:
            await self._reader.turn()
        return True


def _last_event_id(request: web.Request) -> str | None:
    """Read where to resume: a header from EventSource, a query from those that cannot set one."""
    value = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
    return value if value and value.isprintable() and len(value) <= 100 else None
