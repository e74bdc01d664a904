"""The log keeper: what streams say is kept in the store while they say it, and found there after a restart.

Batches, never events: what has come since the last one, at most every half second while there is news, all streams'
batches in one commit of the store; readers are not waited for and do not wait. A complete log is kept once more, in one
part. What a crash loses is the last batch, which upstream tells again. Copies are made on the event loop, which takes
microseconds; what is written and read beyond a few KiB is packed and unpacked in a thread.
"""

import asyncio
import logging

from gateway.domain.ports.clock import Clock
from gateway.errors import GatewayError
from gateway.runtime.live import LiveSettings
from gateway.streams.channel import Channel
from gateway.streams.ports import EventLogs
from gateway.streams.rules.event_log import EventLog
from gateway.streams.rules.log_chunk import Part
from gateway.streams.settings import StreamSettings

logger = logging.getLogger(__name__)

PAUSE_SECONDS = 0.5
_PAUSE_AFTER_TROUBLE = 5.0
_IN_A_THREAD = 32 * 1024
"""Bytes from which packing takes longer than the way to a thread and back."""


class LogWriter:
    """Keeps and finds event logs."""

    def __init__(self, store: EventLogs, clock: Clock, settings: LiveSettings[StreamSettings]) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._unkept: dict[str, Channel] = {}
        self._news = asyncio.Event()

    @property
    def dirty(self) -> int:
        """How many logs have news that the store has not."""
        return len(self._unkept)

    def unkept_channel(self, run_id: str) -> Channel | None:
        """Return a channel that has news which the store has not: until then nobody else knows them."""
        return self._unkept.get(run_id)

    def note(self, channel: Channel) -> None:
        """Take note that a channel has news to be kept."""
        self._unkept[channel.run_id] = channel
        self._news.set()

    def drop(self, channel: Channel) -> None:
        """Keep no more of a channel than is kept: what comes to it from now on is not the run's."""
        if self._unkept.get(channel.run_id) is channel:
            del self._unkept[channel.run_id]

    async def run(self) -> None:
        """Keep for ever. What a store that is away did not take is tried again."""
        while True:
            await self._news.wait()
            self._news.clear()
            if await self.flush():
                await self._clock.sleep(PAUSE_SECONDS)
            else:
                self._news.set()
                await self._clock.sleep(_PAUSE_AFTER_TROUBLE)

    async def flush(self) -> bool:
        """Keep all that is new, once; return whether the store took it."""
        return all(await asyncio.gather(*(self._keep(channel) for channel in tuple(self._unkept.values()))))

    async def load(self, run_id: str) -> EventLog | None:
        """Find what was kept of a run's log. Raise `StoreUnavailable` if that cannot be told."""
        parts = await self._store.event_parts(run_id)
        if not parts:
            return None
        max_bytes = self._settings.value.max_log_bytes
        try:
            if sum(map(len, parts)) < _IN_A_THREAD // 8:  # packed, it is a fraction of what it was
                return EventLog.joined(parts, max_bytes)
            return await asyncio.to_thread(EventLog.joined, parts, max_bytes)
        except ValueError as exc:
            logger.error("a kept stream cannot be read, and is read anew", extra={"run": run_id, "reason": str(exc)})  # noqa: TRY400
            return None

    async def _keep(self, channel: Channel) -> bool:
        log = channel.log
        kept_from = log.dropped
        part = log.part(0 if log.is_closed else channel.kept)
        try:
            await self._store.append_events(channel.run_id, part.first, await _packed(part), kept_from=kept_from)
        except GatewayError as exc:
            logger.warning("a stream could not be kept yet", extra={"run": channel.run_id, "reason": exc.detail})
            return False
        channel.kept, channel.is_kept_whole = part.end, part.is_closed
        if part.end == log.end and part.is_closed == log.is_closed:
            self._unkept.pop(channel.run_id, None)
        return True


async def _packed(part: Part) -> bytes:
    return part.dump() if len(part.data) < _IN_A_THREAD else await asyncio.to_thread(part.dump)
