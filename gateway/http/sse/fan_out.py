"""The fan-out: writes a run's new events to all of its live readers in one loop.

All live readers are at the same event. So each block is read from the log once and framed once, and the same bytes are
written to every reader, without a queue, a task or a wake-up per reader. The loop yields to other tasks after every
`WRITES_PER_YIELD` readers.
"""

import asyncio
from collections.abc import Callable

from gateway.domain.ports.observers import UpstreamObserver
from gateway.http.sse.connection import Block, Reader
from gateway.streams.channel import Channel
from gateway.streams.rules.event_log import EventLog

BLOCK_BYTES = 32 * 1024
WRITES_PER_YIELD = 200
"""Readers between two yields to the event loop: two to four milliseconds of writing."""


class FanOut:
    """Writes a channel's events to its readers. Registers as the channel's listener while it has any."""

    def __init__(self, channel: Channel, observer: UpstreamObserver) -> None:
        self._channel = channel
        self._observer = observer
        self._readers: dict[Reader, Callable[[], float | None]] = {}
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

    def add(self, reader: Reader, canceled_at: Callable[[], float | None]) -> None:
        """Add a reader. `canceled_at` returns when the prediction was canceled for this caller, if the run goes on."""
        if not self._readers:
            self._channel.listener = self
            self._cursor = self.log.end
        self._readers[reader] = canceled_at
        reader.canceled_at = canceled_at()

    def remove(self, reader: Reader) -> None:
        """Remove a reader."""
        del self._readers[reader]
        if not self._readers and self._channel.listener is self:
            self._channel.listener = None

    def check_canceled(self) -> None:
        """Wake the readers whose prediction was canceled for their caller."""
        for reader, canceled_at in self._readers.items():
            reader.canceled_at = canceled_at()
            if reader.canceled_at is not None:
                reader.wake()

    async def pump(self) -> None:
        """Write new events to live readers. Wake readers that have no position yet, or all if the log is complete."""
        log, writes = self.log, 0
        while self._cursor < log.end:
            live = [reader for reader in self._readers if reader.is_live and reader.cursor == self._cursor]
            if not live:
                break
            data, after = log.read(self._cursor, BLOCK_BYTES)
            block = Block.of(data)
            sent = 0
            for reader in live:
                # During a yield it may have disconnected, or its own task may have read ahead.
                if not reader.is_live or reader.cursor != self._cursor:
                    continue
                reader.cursor = after
                reader.write(block)
                if reader.on_first_event is not None:
                    reader.report_first_event()
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
