"""The log writer: stores event logs while their streams are read, and loads them after a restart.

New events are written in batches, at most every half second. All streams' batches go to the store together. Readers
never wait for the store. A complete log is written once more, as a single chunk. A crash loses the last batch, which
upstream sends again. Chunks are copied on the event loop, which takes microseconds; those above a few KiB are
compressed and decompressed in a thread.
"""

import asyncio
import logging

from gateway.domain.ports.clock import Clock
from gateway.errors import GatewayError
from gateway.runtime.live import LiveSettings
from gateway.streams.channel import Channel
from gateway.streams.ports import EventLogs
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.log_chunk import LogChunk
from gateway.streams.settings import StreamSettings

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
_RETRY_SECONDS = 5.0
_IN_A_THREAD = 32 * 1024
"""Bytes from which compression takes longer than switching to a thread and back."""


class LogWriter:
    """Writes and loads event logs."""

    def __init__(self, store: EventLogs, clock: Clock, settings: LiveSettings[StreamSettings]) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._dirty: dict[str, Channel] = {}
        self._changed = asyncio.Event()

    @property
    def dirty(self) -> int:
        """Number of logs with events that are not stored yet."""
        return len(self._dirty)

    def dirty_channel(self, run_id: str) -> Channel | None:
        """Return the channel of a run if it has events that are not stored yet."""
        return self._dirty.get(run_id)

    def mark_dirty(self, channel: Channel) -> None:
        """Schedule a channel's new events for the next batch."""
        self._dirty[channel.run_id] = channel
        self._changed.set()

    def drop(self, channel: Channel) -> None:
        """Store no more of a channel's events."""
        if self._dirty.get(channel.run_id) is channel:
            del self._dirty[channel.run_id]

    def drop_all(self) -> None:
        """Store no more events: the runs are other nodes'."""
        self._dirty.clear()

    async def run(self) -> None:
        """Write batches until cancelled. Retry while the store is unavailable."""
        if self._dirty:
            # The loop crashed while it wrote these.
            self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            if await self.flush():
                await self._clock.sleep(PAUSE_SECONDS)
            else:
                self._changed.set()
                await self._clock.sleep(_RETRY_SECONDS)

    async def flush(self) -> bool:
        """Write all new events once; return whether every write succeeded."""
        return all(await asyncio.gather(*(self._write(channel) for channel in tuple(self._dirty.values()))))

    async def load(self, run_id: str) -> EventLog | None:
        """Return the stored log of a run, or `None` if there is none or it is corrupt. Raise `StoreUnavailable`."""
        chunks = await self._store.event_parts(run_id)
        if not chunks:
            return None
        max_bytes = self._settings.value.max_log_bytes
        try:
            if sum(map(len, chunks)) < _IN_A_THREAD // 8:  # compressed size, a fraction of the log's
                return EventLog.from_chunks(chunks, max_bytes)
            return await asyncio.to_thread(EventLog.from_chunks, chunks, max_bytes)
        except ValueError as exc:
            logger.error("stored event log is corrupt, starting over", extra={"run": run_id, "reason": str(exc)})  # noqa: TRY400
            return None

    async def _write(self, channel: Channel) -> bool:
        log = channel.log
        kept_from = log.dropped
        chunk = log.chunk_from(0 if log.is_closed else channel.stored)
        try:
            await self._store.append_events(channel.run_id, chunk.first, await _dump(chunk), kept_from=kept_from)
        except GatewayError as exc:
            logger.warning("storing events failed, retrying", extra={"run": channel.run_id, "reason": exc.detail})
            return False
        channel.stored = chunk.end
        # Events may have arrived during the write.
        if chunk.end == log.end and chunk.is_closed == log.is_closed:
            self.drop(channel)
        return True


async def _dump(chunk: LogChunk) -> bytes:
    return chunk.dump() if len(chunk.data) < _IN_A_THREAD else await asyncio.to_thread(chunk.dump)
