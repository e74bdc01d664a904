"""The fan-out: the readers of one run, written to in one loop.

All readers that are up to date stand at the same event, so a block of news is read from the log once, framed once, and
the same bytes are written to each of them in turn: no queue, no task and no wake-up per reader. In a large crowd other
work gets its turn every so many readers.
"""

import asyncio
from collections.abc import Callable

from gateway.domain.ports.observers import UpstreamObserver
from gateway.http.sse.connection import Block, Reader
from gateway.streams.channel import Channel
from gateway.streams.rules.event_log import EventLog

BLOCK_BYTES = 32 * 1024
WRITES_A_TURN = 200
"""Readers after which the event loop is given up: two to four milliseconds' worth."""


class FanOut:
    """Writes a channel's news to its readers."""

    def __init__(self, channel: Channel, observer: UpstreamObserver) -> None:
        self._channel = channel
        self._observer = observer
        self._readers: dict[Reader, Callable[[], float | None]] = {}
        # Where live readers stand. Between two pumps it is the log's end.
        self._cursor = channel.log.end

    @property
    def log(self) -> EventLog:
        """What there is to read."""
        return self._channel.log

    @property
    def readers(self) -> tuple[Reader, ...]:
        """Everybody who is there, live or not."""
        return tuple(self._readers)

    def enter(self, reader: Reader, left_at: Callable[[], float | None]) -> None:
        """Take part. `left_at` tells when the prediction ended for this caller, if that was before its run."""
        if not self._readers:
            self._channel.listener = self
            self._cursor = self.log.end
        self._readers[reader] = left_at
        reader.left_at = left_at()

    def leave(self, reader: Reader) -> None:
        """Take part no more."""
        del self._readers[reader]
        if not self._readers and self._channel.listener is self:
            self._channel.listener = None

    def look(self) -> None:
        """Ask of each reader whether its prediction has ended."""
        for reader, left_at in self._readers.items():
            reader.left_at = left_at()
            if reader.left_at is not None:
                reader.wake()

    async def pump(self) -> None:
        """Write what is new to those who are live, and wake those who have to look for themselves."""
        log, writes = self.log, 0
        while self._cursor < log.end:
            live = [reader for reader in self._readers if reader.is_live and reader.cursor == self._cursor]
            if not live:
                break
            data, after = log.read(self._cursor, BLOCK_BYTES)
            block = Block.of(data)
            sent = 0
            for reader in live:
                # While others had their turn it may have left, or gone ahead on its own.
                if not reader.is_live or reader.cursor != self._cursor:
                    continue
                reader.cursor = after
                reader.write(block)
                if reader.first_event is not None:
                    reader.note_events()
                sent += len(data)
                writes += 1
                if writes % WRITES_A_TURN == 0:
                    await asyncio.sleep(0)
            self._observer.events_sent(sent)
            self._cursor = after
        self._cursor = log.end
        for reader in self._readers:
            if log.is_closed or reader.cursor < 0:
                reader.wake()
