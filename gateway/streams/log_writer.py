"""The log writer: stores event logs while their streams are read, and loads them after a restart.

New events are written in batches, at most every half second; at most every 40 ms while another node reads the log as
it grows. All streams' batches go to the store together. Readers
never wait for the store. A complete log is written once more, as a single chunk. A crash loses the last batch, which
upstream sends again. Chunks are copied on the event loop, which takes microseconds; those above a few KiB are
compressed and decompressed in a thread.
"""

import asyncio
import logging
from collections.abc import Sequence

from gateway.domain.ports.clock import Clock
from gateway.errors import GatewayError
from gateway.nodes.news import News, NoNews, Topic
from gateway.runtime.live import LiveSettings
from gateway.streams.channel import Channel
from gateway.streams.ports import EventLogs
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.log_chunk import LogChunk
from gateway.streams.settings import StreamSettings
from gateway.streams.watchers import Watchers

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
WATCHED_PAUSE_SECONDS = 0.03
"""After a write of logs that other nodes read as they grow."""
GATHER_SECONDS = 0.01
"""Before such a write, for events of other streams that come at the same time."""
_MOST_SMALL_PARTS = 25
"""Small parts of a log that are replaced by one with all of their events: about a second of a stream."""
_RETRY_SECONDS = 5.0
_IN_A_THREAD = 32 * 1024
"""Bytes from which compression takes longer than switching to a thread and back."""


class LogWriter:
    """Writes and loads event logs."""

    def __init__(
        self,
        store: EventLogs,
        clock: Clock,
        settings: LiveSettings[StreamSettings],
        watchers: Watchers | None = None,
        news: News | None = None,
    ) -> None:
        """Take `watchers`, which know what other nodes read as it grows, and `news`, to tell them of it."""
        self._watchers = watchers or Watchers(clock)
        self._news = news or NoNews()
        self._store = store
        self._clock = clock
        self._settings = settings
        self._dirty: dict[str, Channel] = {}
        self._changed = asyncio.Event()
        self._written: Sequence[str] = ()
        """The runs whose logs were written last."""
        self._all_at = 0.0
        """From when on logs that nobody watches are written again."""
        self._woken: asyncio.Future[None] | None = None
        """What ends the pause after a write, during that pause."""
        self._is_slow = False
        """Whether that pause is the long one."""

    @property
    def dirty(self) -> int:
        """Number of logs with events that are not stored yet."""
        return len(self._dirty)

    def dirty_channel(self, run_id: str) -> Channel | None:
        """Return the channel of a run if it has events that are not stored yet."""
        return self._dirty.get(run_id)

    def mark_dirty(self, channel: Channel) -> None:
        """Schedule a channel's new events for the next batch, unless the run is another node's."""
        if channel.is_dropped:
            return
        self._dirty[channel.run_id] = channel
        self._changed.set()
        if self._is_slow and self._watchers.until and self._watchers.has(channel.run_id):
            self.hurry(channel.run_id)

    def hurry(self, run_id: str) -> None:
        """Write a log's new events now: another node watches it."""
        if run_id in self._dirty and self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def drop(self, channel: Channel) -> None:
        """Store no more of a channel's events."""
        if self._dirty.get(channel.run_id) is channel:
            del self._dirty[channel.run_id]

    def drop_all(self) -> None:
        """Store no more events: the runs are other nodes'."""
        self._dirty.clear()

    async def run(self) -> None:
        """Write batches until cancelled. Retry while the store is unavailable."""
        self._all_at = 0.0
        if self._dirty:
            # The loop crashed while it wrote these.
            self._changed.set()
        while True:
            await self._changed.wait()
            if self._watchers.until:
                await self._clock.sleep(GATHER_SECONDS)
            self._changed.clear()
            if not await self._write_due():
                self._changed.set()
                await self._clock.sleep(_RETRY_SECONDS)
                continue
            is_watched = self._watchers.any_of(self._dirty) or self._watchers.any_of(self._written)
            self._woken, self._is_slow = asyncio.get_running_loop().create_future(), not is_watched
            try:
                await self._clock.sleep_until(self._woken, WATCHED_PAUSE_SECONDS if is_watched else PAUSE_SECONDS)
            finally:
                self._woken, self._is_slow = None, False
            if self._dirty:
                self._changed.set()

    async def _write_due(self) -> bool:
        """Write the new events of logs whose time has come; return whether every write succeeded."""
        now = self._clock.monotonic()
        if now < self._all_at:
            return await self._write_all([each for each in self._dirty.values() if self._watchers.has(each.run_id)])
        self._all_at = now + PAUSE_SECONDS
        return await self.flush()

    async def flush(self) -> bool:
        """Write all new events once; return whether every write succeeded."""
        return await self._write_all(tuple(self._dirty.values()))

    async def _write_all(self, channels: Sequence[Channel]) -> bool:
        self._written = [channel.run_id for channel in channels]
        return all(await asyncio.gather(*map(self._write, channels)))

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
        is_watched = bool(self._watchers.until) and self._watchers.has(channel.run_id)
        is_merged = channel.small_parts >= _MOST_SMALL_PARTS
        chunk = log.chunk_from(0 if log.is_closed else channel.small_from if is_merged else channel.stored)
        try:
            await self._store.append_events(channel.run_id, chunk.first, await _dump(chunk), kept_from=kept_from)
        except GatewayError as exc:
            logger.warning("storing events failed, retrying", extra={"run": channel.run_id, "reason": exc.detail})
            return False
        channel.stored = chunk.end
        if not is_watched or is_merged:
            channel.small_parts = 0
        else:
            if not channel.small_parts:
                channel.small_from = chunk.first
            channel.small_parts += 1
        if is_watched:
            self._news.tell(Topic.EVENTS, channel.run_id)
        # Events may have arrived during the write.
        if chunk.end == log.end and chunk.is_closed == log.is_closed:
            self.drop(channel)
        return True


async def _dump(chunk: LogChunk) -> bytes:
    return chunk.dump() if len(chunk.data) < _IN_A_THREAD else await asyncio.to_thread(chunk.dump)
