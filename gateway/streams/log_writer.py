"""The log writer: stores event logs while their streams are read, and loads them after a restart.

New events are written in batches, at most every half second; at most every 40 ms those of logs that another node reads
as they grow. The logs of a batch go to the store together, in one step that also tells the other nodes. While there are
such logs, the others are written a bounded number at a time (`rules/flushes.py`). Readers never wait for the store. A
complete log is written once more, as a single chunk. A crash loses the last batch, which upstream sends again. Chunks
are copied on the event loop, which takes microseconds; those above a few KiB are compressed and decompressed in a
thread.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from gateway.domain.ports.clock import Clock
from gateway.errors import GatewayError
from gateway.runtime.live import LiveSettings
from gateway.streams.channel import Channel
from gateway.streams.ports import EventLogs, LogPart
from gateway.streams.rules import flushes
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.log_chunk import LogChunk
from gateway.streams.settings import StreamSettings
from gateway.streams.watchers import Watchers

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
WATCHED_SECONDS = 0.04
"""From one write of logs that other nodes read as they grow to the next."""
GATHER_SECONDS = 0.01
"""Before such a write, for events of other streams that come at the same time, and at least between two."""
_MOST_PARTS = 200
_MOST_BYTES = 8 * 1024 * 1024
"""Logs of one step, and bytes of their events."""
_MOST_SMALL_PARTS = 25
"""Small parts of a log that are replaced by one with all of their events: about a second of a stream."""
_RETRY_SECONDS = 5.0
_MOST_LOGGED = 5
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
    ) -> None:
        """Take `watchers`, which know what other nodes read as it grows."""
        self._watchers = watchers or Watchers(clock)
        self._store = store
        self._clock = clock
        self._settings = settings
        self._dirty: dict[str, Channel] = {}
        self._due_at: dict[str, float] = {}
        """From when on each of these is written while others are watched; in this order."""
        self._changed = asyncio.Event()
        self._written: Sequence[str] = ()
        """The runs whose logs were written last."""
        self._woken: asyncio.Future[None] | None = None
        """What ends the pause after a write, during that pause."""
        self._is_slow = False
        """Whether that pause is the long one."""
        self._has_more = False
        """Whether more logs are to be written that nobody watches."""

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
        self._due_at.setdefault(channel.run_id, self._clock.monotonic() + PAUSE_SECONDS)
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
            del self._dirty[channel.run_id], self._due_at[channel.run_id]

    def drop_all(self) -> None:
        """Store no more events: the runs are other nodes'."""
        self._dirty.clear()
        self._due_at.clear()

    async def run(self) -> None:
        """Write batches until cancelled. Retry while the store is unavailable."""
        if self._dirty:
            # The loop crashed while it wrote these.
            self._changed.set()
        is_first = True
        while True:
            is_first |= not self._changed.is_set()
            await self._changed.wait()
            if is_first and self._watchers.until:
                await self._clock.sleep(GATHER_SECONDS)
            self._changed.clear()
            began = self._clock.monotonic()
            if not await self._write_due():
                self._changed.set()
                await self._clock.sleep(_RETRY_SECONDS)
                continue
            is_first = await self._pause(began)
            if self._dirty:
                self._changed.set()

    async def _pause(self, began: float) -> bool:
        """Pause after a write. Return whether it was ended early, because a log that another node watches has grown."""
        soon = self._watchers.any_of(self._dirty) or self._watchers.any_of(self._written) or self._has_more
        now = self._clock.monotonic()
        seconds = max(GATHER_SECONDS, began + WATCHED_SECONDS - now) if soon else PAUSE_SECONDS
        if not soon and self._watchers.until and self._due_at:
            # The first of them is the next whose time comes.
            seconds = min(seconds, max(WATCHED_SECONDS, next(iter(self._due_at.values())) - now))
        self._woken, self._is_slow = asyncio.get_running_loop().create_future(), not soon
        try:
            await self._clock.sleep_until(self._woken, seconds)
        finally:
            self._woken, self._is_slow = None, False
        return not soon and self._watchers.any_of(self._dirty)

    async def _write_due(self) -> bool:
        """Write the new events of logs whose time has come; return whether every write succeeded."""
        self._written, self._has_more = (), False
        if not self._watchers.any_of(self._watchers.until):
            return await self.flush()
        now = self._clock.monotonic()
        watched, others, self._has_more = flushes.flush(self._due_at, self._watchers.has, now)
        self._written = watched
        are_written = await self._write_all(self._channels(watched))
        # One after the other: those whose readers wait do not wait for those that nobody watches.
        return await self._write_all(self._channels(others)) and are_written

    def _channels(self, run_ids: Sequence[str]) -> list[Channel]:
        return [self._dirty[each] for each in run_ids if each in self._dirty]

    async def flush(self) -> bool:
        """Write all new events once; return whether every write succeeded."""
        return await self._write_all(list(self._dirty.values()))

    async def _write_all(self, channels: Sequence[Channel]) -> bool:
        waiting, merges = list(reversed(channels)), flushes.most_merges(len(channels))
        are_written = True
        while waiting:
            chunks: list[_Chunk] = []
            size = 0
            while waiting and len(chunks) < _MOST_PARTS and size < _MOST_BYTES:
                channel = waiting.pop()
                if self._dirty.get(channel.run_id) is not channel:
                    # Given up during the write of others.
                    continue
                chunks.append(chunk := self._chunk_of(channel, may_merge=merges > 0))
                merges -= chunk.is_merged
                size += len(chunk.chunk.data)
            are_written &= not chunks or await self._write(chunks)
        return are_written

    def _chunk_of(self, channel: Channel, *, may_merge: bool) -> "_Chunk":
        log = channel.log
        is_merged = may_merge and channel.small_parts >= _MOST_SMALL_PARTS
        chunk = log.chunk_from(0 if log.is_closed else channel.small_from if is_merged else channel.stored)
        is_watched = bool(self._watchers.until) and self._watchers.has(channel.run_id)
        return _Chunk(channel, chunk, log.dropped, is_merged, is_watched)

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

    async def _write(self, chunks: "Sequence[_Chunk]") -> bool:
        due_at = self._clock.monotonic() + PAUSE_SECONDS
        for each in chunks:
            del self._due_at[each.channel.run_id]
            self._due_at[each.channel.run_id] = due_at
        try:
            await self._store.append_events([await each.part() for each in chunks])
        except GatewayError as exc:
            extra = {"runs": [each.channel.run_id for each in chunks[:_MOST_LOGGED]], "reason": exc.detail}
            logger.warning("storing events failed, retrying", extra=extra)
            return False
        for each in chunks:
            each.note_stored()
            # Events may have arrived during the write.
            if each.chunk.end == each.channel.log.end and each.chunk.is_closed == each.channel.log.is_closed:
                self.drop(each.channel)
        return True


class _Chunk(NamedTuple):
    """Events of a channel on their way to the store."""

    channel: Channel
    chunk: LogChunk
    kept_from: int
    is_merged: bool
    """Whether it replaces small parts."""
    is_watched: bool

    async def part(self) -> LogPart:
        """Return what the store gets."""
        return LogPart(
            self.channel.run_id, self.chunk.first, await _dump(self.chunk), self.kept_from, is_told=self.is_watched
        )

    def note_stored(self) -> None:
        """Note what the store has."""
        channel = self.channel
        channel.stored = self.chunk.end
        if not self.is_watched or self.is_merged:
            channel.small_parts = 0
        else:
            if not channel.small_parts:
                channel.small_from = self.chunk.first
            channel.small_parts += 1


async def _dump(chunk: LogChunk) -> bytes:
    return chunk.dump() if len(chunk.data) < _IN_A_THREAD else await asyncio.to_thread(chunk.dump)
