"""The fan-out: writes a run's new events to all of its live readers in one loop.

All live readers are at the same event. So each block is read from the log once and framed once, and the same bytes are
written to every reader, without a queue, a task or a wake-up per reader. The loop yields to other tasks after every
`WRITES_PER_YIELD` readers.
"""

import asyncio
from collections.abc import Callable, Container

from gateway.domain.ports.observers import UpstreamObserver
from gateway.domain.records import PredictionView
from gateway.http.sse.connection import Block, Reader
from gateway.streams.channel import Channel
from gateway.streams.rules.event_log import LONG, EventLog

BLOCK_BYTES = 32 * 1024
WRITES_PER_YIELD = 200
"""Readers between two yields to the event loop: two to four milliseconds of writing."""


class FanOut:
    """Writes a channel's events to its readers. Registers as the channel's listener while it has any."""

    def __init__(
        self, channel: Channel, observer: UpstreamObserver, canceled_at: Callable[[PredictionView], float | None]
    ) -> None:
        """Take `canceled_at`, which returns when a prediction was canceled for its caller, if the run goes on."""
        self._channel = channel
        self._observer = observer
        self._canceled_at = canceled_at
        self._readers: dict[Reader, PredictionView] = {}
        # The cursor of live readers. Outside of `pump` it is the log's end.
        self._cursor = channel.log.end

    @property
    def log(self) -> EventLog:
        """The channel's event log."""
        return self._channel.log

    @property
    def readers(self) -> tuple[Reader, ...]:
        """All readers, live or not."""
        return tuple(self._readers)

    @property
    def has_readers(self) -> bool:
        """Whether it has any reader."""
        return bool(self._readers)

    def add(self, reader: Reader, view: PredictionView) -> None:
        """Add a reader of a prediction of this run."""
        if not self._readers:
            self._channel.listener = self
            self._cursor = self.log.end
        self._readers[reader] = view
        reader.canceled_at = self._canceled_at(view)

    def remove(self, reader: Reader) -> None:
        """Remove a reader."""
        del self._readers[reader]
        if not self._readers and self._channel.listener is self:
            self._channel.listener = None

    def check_canceled(self) -> None:
        """Wake the readers whose prediction was canceled for their caller."""
        for reader, view in self._readers.items():
            reader.canceled_at = self._canceled_at(view)
            if reader.canceled_at is not None:
                reader.wake()

    def close(self, teams: Container[str] = ()) -> None:
        """End the streams of all readers, but for those of these teams."""
        for reader, view in self._readers.items():
            if view.prediction.team not in teams:
                reader.is_closing = True
                reader.wake()

    async def pump(self) -> None:
        """Write new events to live readers. Wake readers that have no position yet, or all if the log is complete."""
        log, writes = self.log, 0
        while self._cursor < log.end:
            live = [reader for reader in self._readers if reader.is_live and reader.cursor == self._cursor]
            if not live:
                break
            data, after = log.read(self._cursor, BLOCK_BYTES)
            block = Block.of(data) if len(data) <= LONG else None
            sent = 0
            for reader in live:
                # During a yield it may have disconnected, or its own task may have read ahead.
                if not reader.is_live or reader.cursor != self._cursor:
                    continue
                reader.cursor = after
                if block is None:
                    reader.begin(data)
                else:
                    reader.write(block)
                if reader.requested_at is not None:
                    reader.report_first_event(self._observer)
                sent += len(data)
                writes += 1
                if writes % WRITES_PER_YIELD == 0:
                    await asyncio.sleep(0)
            self._observer.events_sent(sent)
            self._cursor = after
        self._cursor = log.end
        for reader in self._readers:
            if log.is_closed or reader.cursor < 0:
                reader.wake()
