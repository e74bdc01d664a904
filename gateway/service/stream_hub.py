"""The stream hub: one upstream connection a run, any number of readers (design 2.5, 3).

Upstream's events go into the run's log byte for byte; each reader is a cursor into it, so history comes first, then
what is live, and a slow reader delays nobody. Upstream's comments stay behind: readers get heartbeats of ours. A stream
that breaks is taken up again after its last event; if it cannot be, the run's own end finishes the log, always with
`done`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from cachetools import LRUCache

from gateway.core import replay, sse
from gateway.core.event_log import EventLog
from gateway.core.records import Run, Sight
from gateway.errors import GatewayError
from gateway.ports import Clock
from gateway.service.tracker import Tracker

logger = logging.getLogger(__name__)

_MAX_EVENT_BYTES = 2 * 1024 * 1024
_MAX_FAILURES = 5
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0
_OUTPUT = "output"
_LAST_NUMBER = 999_999
_WAIT_FOR_END_SECONDS = 3600.0


class Reader(Protocol):
    """Whoever opens upstream's streams; see `gateway.outbound.streams`."""

    def open(self, url: str, last_event_id: str | None = None) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Open a stream, after an event if one is named."""
        ...


class Channel:
    """One run's events, and those who wait for more."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.outputs = 0
        """How many `output` events have come: what a result has beyond them is still to be said."""
        self.task: asyncio.Task[None] | None = None
        self._news: asyncio.Future[None] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing comes any more."""
        return self.log.is_closed

    def wake(self) -> None:
        """Let every reader look again."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        self._news = None

    async def news(self, seconds: float) -> bool:
        """Wait until there is something to look at; false when the time passed without."""
        if self._news is None:
            self._news = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait({self._news}, timeout=seconds)
        return bool(done)


class StreamHub:
    """Hands out the channels of runs."""

    def __init__(
        self, reader: Reader, tracker: Tracker, clock: Clock, *, max_log_bytes: int, kept_log_bytes: int
    ) -> None:
        self._reader = reader
        self._tracker = tracker
        self._clock = clock
        self._max_log_bytes = max_log_bytes
        self._live: dict[str, Channel] = {}
        self._kept: LRUCache[str, Channel] = LRUCache(kept_log_bytes, getsizeof=lambda channel: channel.log.size + 1024)

    @property
    def live(self) -> int:
        """How many runs are being read upstream."""
        return len(self._live)

    @property
    def kept_bytes(self) -> int:
        """Bytes of finished runs' events that are kept."""
        return int(self._kept.currsize)

    def open(self, sight: Sight) -> Channel:
        """Return the channel of a prediction's run: the live one, the one that was kept, or a replay of the result."""
        run = sight.run
        channel = self._live.get(run.id) or self._kept.get(run.id)
        if channel is not None:
            return channel
        channel = Channel(EventLog(self._max_log_bytes))
        if run.status.is_terminal:
            self._finish(channel, run)
            self._keep(run.id, channel)
        else:
            self._live[run.id] = channel
            channel.task = asyncio.create_task(self._read(channel, run), name=f"stream {run.id}")
            channel.task.add_done_callback(lambda _: self._live.pop(run.id, None))
        return channel

    def wake(self, run_id: str) -> None:
        """Let the readers of a run look again: one of its predictions has ended for its caller."""
        if channel := self._live.get(run_id):
            channel.wake()

    async def close(self) -> None:
        """Stop reading. Logs are not lost: upstream tells everything again to a late reader."""
        tasks = [channel.task for channel in self._live.values() if channel.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, channel: Channel, run: Run) -> None:
        """Fill a log from upstream's stream until it is done; else from the run's end."""
        failures, last_id = 0, None
        splitter = sse.EventSplitter(_MAX_EVENT_BYTES)
        while run.stream_url is not None and failures < _MAX_FAILURES and not self._has_ended(run):
            splitter.reset()
            try:
                async with self._reader.open(run.stream_url, last_id) as chunks:
                    async for chunk in chunks:
                        before = last_id
                        last_id = self._take(channel, splitter, chunk, last_id)
                        if channel.is_complete:
                            self._tracker.nudge(run.id)
                            return self._keep(run.id, channel)
                        failures = failures if last_id == before else 0
            except (GatewayError, ValueError) as exc:
                logger.info("a stream broke off", extra={"run": run.id, "reason": str(exc)})
            failures += 1
            await self._clock.sleep(min(_FIRST_PAUSE * 2**failures, _LONGEST_PAUSE))
        ended = await self._end_of(run)
        self._finish(channel, ended)
        channel.wake()
        return self._keep(run.id, channel)

    def _take(self, channel: Channel, splitter: sse.EventSplitter, chunk: bytes, last_id: str | None) -> str | None:
        """Put the events of a chunk into the log; return the last id."""
        events = splitter.feed(chunk)
        for event in events:
            if event.is_comment or (event.id is not None and event.id == last_id):
                continue
            channel.log.append(event)
            channel.outputs += event.name == _OUTPUT
            last_id = event.id or last_id
            if channel.is_complete:
                break
        if events:
            channel.wake()
        return last_id

    def _has_ended(self, run: Run) -> bool:
        return self._tracker.watch(run.id) is None

    async def _end_of(self, run: Run) -> Run:
        """Wait for the run's own end: what its stream did not say stands in its result."""
        watch = self._tracker.watch(run.id)
        if watch is not None:
            return await watch.wait_until(lambda known: known.status.is_terminal, _WAIT_FOR_END_SECONDS)
        return await self._tracker.newest(run)

    def _finish(self, channel: Channel, run: Run) -> None:
        """Complete a log from the run's result: what was not said of it, and the end."""
        try:
            events = replay.replay(
                run.document, run.ended_at or run.intended_at, sent=channel.outputs, last_id=channel.log.last_id
            )
        except ValueError as exc:
            logger.warning("a result cannot be replayed", extra={"run": run.id, "reason": str(exc)})
            end = f"{int(run.ended_at or run.intended_at)}:{_LAST_NUMBER}"
            events = [replay.frame(sse.DONE, end, '{"reason":"error"}')]
        for event in events:
            channel.log.append(event)
        channel.log.close()

    def _keep(self, run_id: str, channel: Channel) -> None:
        if channel.log.size + 1024 <= self._kept.maxsize:
            self._kept[run_id] = channel

    def forget(self) -> None:
        """Drop what is kept of finished runs: the janitor has taken data away."""
        self._kept.clear()
