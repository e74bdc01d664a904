"""Reads a run's upstream stream into its channel (docs/architecture.md, Invariants 5 and Streams).

Upstream's events are copied byte for byte. Its comments are not, because the gateway sends its own heartbeats. A broken
connection is resumed after the last event received, and repeated events are dropped. A connection without a new event
is a failure. After a few failures in a row the reader gives up; the run's result has the missing output. Upstream
closes a connection after 30 s of silence (`:408:`). That is not a failure, unless it happens immediately.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import UpstreamObserver
from gateway.domain.records import Run
from gateway.errors import GatewayError, UpstreamBroken
from gateway.streams.channel import Channel
from gateway.streams.rules import sse
from gateway.streams.rules.event_log import ERROR, EventLog, order
from gateway.streams.rules.sse import Event, EventSplitter, EventTooLong

logger = logging.getLogger(__name__)

MAX_EVENT_BYTES = 2 * 1024 * 1024
"""Room for an image as a data URI."""
_PART = 8 * 1024
"""Small enough that hundreds of short events, which take milliseconds, are the most that others wait for."""
_SMALL_CHUNK = 1024
_MAX_FAILURES = 5
_FIRST_PAUSE = 0.2
_MAX_PAUSE = 5.0
_MIN_IDLE_SECONDS = 5.0
"""A `:408:` sooner than this counts as a failure, because reconnecting after each of them would never stop."""


class Reader(Protocol):
    """Opens upstream's streams; implemented by `gateway.upstream.streams`."""

    def open(self, url: str, last_event_id: str | None = None) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a stream and yield its bytes, after the event `last_event_id` if it is given. Raise `UpstreamError`."""
        ...


class Strike(Protocol):
    """Takes secret values from a line of data."""

    def __call__(self, data: bytes, *, is_error: bool) -> bytes:
        """Return the line without them. `is_error`: of an event `error`."""
        ...


class UpstreamStreamReader:
    """Fills channels with the events of upstream's streams."""

    def __init__(self, reader: Reader, clock: Clock, observer: UpstreamObserver) -> None:
        self._reader = reader
        self._clock = clock
        self._observer = observer

    async def fill(
        self,
        channel: Channel,
        run: Run,
        *,
        has_ended: Callable[[], bool],
        on_events: Callable[[], None],
        strike: Strike | None = None,
    ) -> None:
        """Read until the stream is complete, or give up after failures.

        `has_ended` returns whether the run has ended. Then its result is available, so a broken connection is not
        resumed, and a stream without any event so far is not read at all. `on_events` is called after events were
        published. `strike` takes the run's secret values from a line of data.
        """
        if run.stream_url is None:
            return
        # A longer event would displace all others in the log, so that slow readers could not go on.
        max_event_bytes = min(MAX_EVENT_BYTES, channel.log.max_bytes)
        failures = 0
        while failures < _MAX_FAILURES and not (has_ended() and not channel.log.end):
            had_ended = has_ended()
            connection = _Connection(channel, self._observer, max_event_bytes, on_events, strike)
            opened_at = self._clock.monotonic()
            try:
                async with self._reader.open(run.stream_url, channel.log.last_id) as chunks:
                    async for chunk in chunks:
                        await _feed(connection, channel, chunk)
                        if channel.is_complete:
                            return
            except GatewayError as exc:
                logger.info("upstream stream failed", extra={"run": run.id, "reason": exc.detail})
            if had_ended:
                return
            is_idle_timeout = connection.timed_out_idle and self._clock.monotonic() - opened_at >= _MIN_IDLE_SECONDS
            if connection.has_new_events or is_idle_timeout:
                failures = 0
            if not is_idle_timeout:
                failures += 1
                self._observer.upstream_interrupted("resumed")
            await self._clock.sleep(min(_FIRST_PAUSE * 2**failures, _MAX_PAUSE))


async def _feed(connection: "_Connection", channel: Channel, chunk: bytes) -> None:
    """Feed a chunk, and let others run after each part of it: it may hold thousands of events."""
    for at in range(0, len(chunk), _PART):
        await connection.feed(chunk[at : at + _PART])
        if channel.is_complete:
            return
        if len(chunk) > _SMALL_CHUNK:
            # Also after the last part: the next chunk may be there already.
            await asyncio.sleep(0)


class _Connection:
    """The events of one connection to upstream."""

    def __init__(
        self,
        channel: Channel,
        observer: UpstreamObserver,
        max_event_bytes: int,
        on_events: Callable[[], None],
        strike: Strike | None,
    ) -> None:
        self.has_new_events = False
        self.timed_out_idle = False
        """Whether upstream announced that it closes the connection because it was idle."""
        self._channel = channel
        self._observer = observer
        self._on_events = on_events
        self._strike = strike
        self._splitter = EventSplitter(max_event_bytes)
        self._is_repeating = channel.log.end > 0
        """Whether upstream may still repeat events that are in the log, because it ignored `Last-Event-ID`."""

    async def feed(self, chunk: bytes) -> None:
        """Publish the events that a chunk completes. Raise `UpstreamBroken` for an event that is too long."""
        try:
            events = self._splitter.feed(chunk)
        except EventTooLong as exc:
            await self._publish(exc.events)
            raise UpstreamBroken(f"Replicate's stream is invalid: {exc}.") from exc
        await self._publish(events)

    async def _publish(self, events: Sequence[Event]) -> None:
        self.timed_out_idle = any(map(sse.is_idle_timeout, events))
        new_events = [event for event in events if not event.is_comment and not self._is_known(event)]
        if self._strike is not None:
            new_events = [_struck(event, self._strike) for event in new_events]
        if new_events:
            self.has_new_events = True
            self._observer.events_read(len(new_events))
            try:
                await self._channel.publish(new_events)
            finally:
                self._on_events()

    def _is_known(self, event: Event) -> bool:
        self._is_repeating = self._is_repeating and _is_in_log(self._channel.log, event)
        return self._is_repeating


def _struck(event: Event, strike: Strike) -> Event:
    return sse.with_data(event, partial(strike, is_error=event.name == ERROR))


def _is_in_log(log: EventLog, event: Event) -> bool:
    if event.id is None or log.last_id is None:
        return False
    position, last = order(event.id), order(log.last_id)
    return log.has(event.id) if position is None or last is None else position <= last
