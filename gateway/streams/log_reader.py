"""Reads event logs as other nodes store them: those of all channels that are filled here from the store, together.

The owner of a run reads upstream's stream and stores its events. While another node says that it watches the run, it
stores them soon, and tells of them. A log is also read every second, in case news were lost.
"""

import asyncio
import logging
from collections.abc import Sequence

from gateway.domain.ports.clock import Clock
from gateway.errors import GatewayError
from gateway.nodes.news import News, Topic
from gateway.streams.channel import Channel
from gateway.streams.ports import EventLogs
from gateway.streams.rules import replay
from gateway.streams.rules.log_chunk import LogChunk
from gateway.streams.watchers import WATCH_SECONDS

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
_MOST = 100
"""Logs that are read at once."""
_IN_A_THREAD = 4096
"""Bytes of compressed events whose decompression takes longer than switching to a thread and back."""
_GAP = "Events of this stream are no longer available. Read the prediction instead."


class LogReader:
    """Appends to channels what other nodes have stored."""

    def __init__(self, store: EventLogs, clock: Clock, news: News) -> None:
        self._store = store
        self._clock = clock
        self._news = news
        self._channels: dict[str, Channel] = {}
        self._due: dict[str, None] = {}
        self._woken: asyncio.Future[None] | None = None
        """What ends the pause before the next read, during that pause."""
        self._grown: dict[str, asyncio.Event] = {}
        self._answered: set[str] = set()
        """The runs of whose logs a node has told since they are read here."""
        news.add_listener(Topic.EVENTS, self._on_events)

    def __len__(self) -> int:
        return len(self._channels)

    def follows(self, run_id: str) -> bool:
        """Return whether the log of a run is read as another node stores it."""
        return run_id in self._channels

    def is_answered(self, run_id: str) -> bool:
        """Return whether a node has said that it has events of a log, since it is followed or was asked for again.

        Nodes say so when they are told that the log is watched, if they have, or may get, some.
        """
        return run_id in self._answered

    def ask_again(self, run_id: str) -> None:
        """Ask all nodes whether they have events of a log that is followed. What was said before does not count."""
        self._answered.discard(run_id)
        self._news.tell(Topic.WATCH, run_id)

    async def follow(self, channel: Channel) -> None:
        """Append events until the log is complete, or this is cancelled."""
        run_id = channel.run_id
        self._channels[run_id] = channel
        self._answered.discard(run_id)
        grown = self._grown[run_id] = asyncio.Event()
        try:
            self._news.tell(Topic.WATCH, run_id)
            self._ask_for(run_id)
            while not channel.is_complete:
                await grown.wait()
                grown.clear()
        finally:
            if self._channels.get(run_id) is channel:
                del self._channels[run_id], self._grown[run_id]
                self._due.pop(run_id, None)
                self._answered.discard(run_id)

    def _on_events(self, names: Sequence[str] | None) -> None:
        for run_id in self._channels if names is None else names:
            if run_id in self._channels:
                self._ask_for(run_id)
                if names is not None:
                    self._answered.add(run_id)

    def _ask_for(self, run_id: str) -> None:
        self._due[run_id] = None
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def run(self) -> None:
        """Read what has grown, until cancelled."""
        look_at = watch_at = 0.0
        while True:
            now = self._clock.monotonic()
            if now >= look_at:
                look_at = now + LOOK_SECONDS
                self._due |= dict.fromkeys(self._channels)
            if now >= watch_at:
                watch_at = now + WATCH_SECONDS
                for run_id in self._channels:
                    self._news.tell(Topic.WATCH, run_id)
            if self._due:
                await self._read()
            if not self._due:
                await self._pause(look_at - self._clock.monotonic())

    async def _pause(self, seconds: float) -> None:
        self._woken = asyncio.get_running_loop().create_future()
        try:
            if self._channels:
                await self._clock.sleep_until(self._woken, max(0.0, seconds))
            else:
                await self._woken
        finally:
            self._woken = None

    async def _read(self) -> None:
        run_ids = [run_id for run_id in list(self._due)[:_MOST] if run_id in self._channels]
        for run_id in list(self._due)[:_MOST]:
            del self._due[run_id]
        if not run_ids:
            return
        try:
            parts = await self._store.event_parts_since({each: self._channels[each].log.end for each in run_ids})
        except GatewayError as exc:
            # They are read again soon.
            logger.warning("event logs of other nodes could not be read", extra={"reason": exc.detail})
            return
        for run_id, found in parts.items():
            channel = self._channels.get(run_id)
            if channel is None:
                continue
            try:
                await self._append(channel, found)
            except Exception:
                # A defect, which must not end other streams.
                logger.exception("an event log of another node could not be read", extra={"run": run_id})
                await self._end(channel)
                self._grow(run_id)

    async def _append(self, channel: Channel, parts: Sequence[bytes]) -> None:
        for part in parts:
            try:
                chunk = await _load(part)
            except ValueError as exc:
                extra = {"run": channel.run_id, "reason": str(exc)}
                logger.error("stored event log is corrupt", extra=extra)  # noqa: TRY400
                await self._end(channel)
                break
            if channel.is_complete or self._channels.get(channel.run_id) is not channel:
                # By a gap, or by the end of its run: from then on its task appends to it.
                break
            await self._append_chunk(channel, chunk)
        self._grow(channel.run_id)

    def _grow(self, run_id: str) -> None:
        if (grown := self._grown.get(run_id)) is not None:
            grown.set()

    async def _append_chunk(self, channel: Channel, chunk: LogChunk) -> None:
        log = channel.log
        if chunk.first > log.end:
            # More has been dropped from the owner's log than was read here.
            await self._end(channel)
            return
        if chunk.end > log.end:
            await channel.publish(chunk.events_from(log.end))
        if chunk.is_closed:
            await channel.close()
        channel.stored = log.end

    async def _end(self, channel: Channel) -> None:
        """End a log whose other events cannot be read."""
        if not channel.is_complete:
            channel.has_gap = True
            await channel.publish(replay.lost(self._clock.now(), _GAP))


async def _load(part: bytes) -> LogChunk:
    return LogChunk.load(part) if len(part) < _IN_A_THREAD else await asyncio.to_thread(LogChunk.load, part)
