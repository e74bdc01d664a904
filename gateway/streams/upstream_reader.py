"""The feed: reads a run's stream upstream, once, into its channel (docs/architecture.md, Invariants 5 and Streams).

Upstream's events go into the log byte for byte; its comments stay behind, since readers get heartbeats of ours. What
breaks off is taken up again after the last event that came, and what is then told twice is left out. A break that
brought nothing new is a failure, and a few of them in a row are the end of trying: what was not said stands in the
run's result. That upstream hangs up after half a minute of silence (`:408:`) is no failure, only a reason to come
back; that it does so at once is one.
"""

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from gateway.domain.ports.clock import Clock
from gateway.domain.records import Run
from gateway.errors import GatewayError, UpstreamBroken
from gateway.streams.channel import Channel
from gateway.streams.ports import StreamObserver
from gateway.streams.rules import sse
from gateway.streams.rules.event_log import EventLog, order
from gateway.streams.rules.sse import Event, EventSplitter, EventTooLong

logger = logging.getLogger(__name__)

LONGEST_EVENT = 2 * 1024 * 1024
"""Room for an image as a data URI."""
_FAILURES = 5
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_SHORTEST_SILENCE = 5.0
"""Seconds below which `:408:` is not upstream's patience that has ended: coming back for it would have no end."""


class Reader(Protocol):
    """Whoever opens upstream's streams; see `gateway.upstream.streams`."""

    def open(self, url: str, last_event_id: str | None = None) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a stream, after an event if one is named."""
        ...


class UpstreamStreamReader:
    """Fills channels."""

    def __init__(self, reader: Reader, clock: Clock, observer: StreamObserver) -> None:
        self._reader = reader
        self._clock = clock
        self._observer = observer

    async def fill(
        self, channel: Channel, run: Run, *, has_ended: Callable[[], bool], on_news: Callable[[], None]
    ) -> None:
        """Read until the stream is complete, or there is no use in trying further.

        `has_ended` says whether the run has; then a result is at hand, and a break is the end of trying. A
        run of which nothing was heard before it ended is not read at all.
        """
        if run.stream_url is None:
            return
        # A log has room for its longest event and the one before, or those who are up to date would miss events.
        max_event_bytes = min(LONGEST_EVENT, channel.log.max_bytes)
        failures = 0
        while failures < _FAILURES and not (has_ended() and not channel.log.end):
            had_ended = has_ended()
            connection = _Connection(channel, self._observer, max_event_bytes, on_news)
            opened_at = self._clock.monotonic()
            try:
                async with self._reader.open(run.stream_url, channel.log.last_id) as chunks:
                    async for chunk in chunks:
                        await connection.take(chunk)
                        if channel.is_complete:
                            return
            except GatewayError as exc:
                logger.info("a stream broke off", extra={"run": run.id, "reason": exc.detail})
            if had_ended:
                return
            has_rested = connection.was_idle and self._clock.monotonic() - opened_at >= _SHORTEST_SILENCE
            if connection.has_news or has_rested:
                failures = 0
            if not has_rested:
                failures += 1
                self._observer.upstream_interrupted("resumed")
            await self._clock.sleep(min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE))


class _Connection:
    """What comes by one connection."""

    def __init__(
        self, channel: Channel, observer: StreamObserver, max_event_bytes: int, on_news: Callable[[], None]
    ) -> None:
        self.has_news = False
        self.was_idle = False
        """Whether upstream has hung up because there was nothing to say."""
        self._channel = channel
        self._observer = observer
        self._on_news = on_news
        self._splitter = EventSplitter(max_event_bytes)
        self._is_repeating = channel.log.end > 0
        """Whether what comes may be known: upstream was asked for what comes after the last event, and may not care."""

    async def take(self, chunk: bytes) -> None:
        """Put the events of a chunk into the log. Raise `UpstreamBroken` for one that has no end."""
        try:
            events = self._splitter.feed(chunk)
        except EventTooLong as exc:
            await self._publish(exc.events)
            raise UpstreamBroken(f"Replicate's stream is no good: {exc}.") from exc
        await self._publish(events)

    async def _publish(self, events: Sequence[Event]) -> None:
        self.was_idle = any(map(sse.is_idle_timeout, events))
        fresh = [event for event in events if not event.is_comment and not self._is_known(event)]
        if fresh:
            self.has_news = True
            self._observer.events_read(len(fresh))
            try:
                await self._channel.publish(fresh)
            finally:
                self._on_news()

    def _is_known(self, event: Event) -> bool:
        self._is_repeating = self._is_repeating and _was_said(self._channel.log, event)
        return self._is_repeating


def _was_said(log: EventLog, event: Event) -> bool:
    if event.id is None or log.last_id is None:
        return False
    asked, last = order(event.id), order(log.last_id)
    return log.has(event.id) if asked is None or last is None else asked <= last
