"""The stream hub: one upstream connection a run, any number of readers, nothing lost.

See docs/architecture.md, Invariants 5 and 9, and Streams.

A channel is opened by its first reader and filled to its end, whoever stays: from what the store has of it
(`log_keeper`), from upstream after that (`stream_feed`), and from the run's own result where upstream has no more to
say, always with `done`. So a restart goes on after the last event that was kept, and a finished run is told with the
same ids and bytes again; one whose stream nobody read is told from its output (`core.replay`).
"""

import asyncio
import logging
import sys
from collections.abc import Mapping
from functools import partial

from cachetools import LRUCache

from gateway.domain.ports.clock import Clock
from gateway.domain.records import PredictionView, Run
from gateway.errors import GatewayError, StoreUnavailable
from gateway.predictions.tracker import Tracker
from gateway.runtime.lru import resize_lru
from gateway.streams.channel import Channel
from gateway.streams.log_writer import LogWriter
from gateway.streams.ports import EventLogs, StreamObserver
from gateway.streams.rules import replay, sse
from gateway.streams.rules.event_log import EventLog
from gateway.streams.upstream_reader import Reader, UpstreamStreamReader

logger = logging.getLogger(__name__)

_LOOK_AGAIN_SECONDS = 600.0
_PAUSE_AFTER_TROUBLE = 2.0
_OVERHEAD = 1024
LAST_WORDS_SECONDS = 10.0
"""How long a stream may tell nothing new once its run has ended: upstream says `done` in the same moment, or never."""
_UNTOLD = "The end of this stream could not be learned. Read the prediction instead."


class StreamHub:
    """Hands out the channels of runs."""

    def __init__(
        self,
        reader: Reader,
        tracker: Tracker,
        store: EventLogs,
        clock: Clock,
        observer: StreamObserver,
        *,
        max_log_bytes: int,
        kept_log_bytes: int,
    ) -> None:
        self.log_writer = LogWriter(store, clock, max_log_bytes=max_log_bytes)
        self._feed = UpstreamStreamReader(reader, clock, observer)
        self._tracker = tracker
        self._clock = clock
        self._observer = observer
        self._max_log_bytes = max_log_bytes
        self._live: dict[str, Channel] = {}
        self._kept: LRUCache[str, Channel] = LRUCache(
            kept_log_bytes, getsizeof=lambda channel: channel.log.size + _OVERHEAD
        )

    def reconfigure(self, *, max_log_bytes: int, kept_log_bytes: int) -> None:
        """Keep more or less of each run that is read from now on, and of those that have ended."""
        self._max_log_bytes = max_log_bytes
        self.log_writer.reconfigure(max_log_bytes=max_log_bytes)
        self._kept = resize_lru(self._kept, kept_log_bytes)

    @property
    def live(self) -> int:
        """How many runs are being read upstream."""
        return len(self._live)

    @property
    def kept_bytes(self) -> int:
        """Bytes of finished runs' events that are kept in memory."""
        return int(self._kept.currsize)

    async def open(self, view: PredictionView, links: Mapping[str, str] | None = None) -> Channel:
        """Return the channel of a prediction's run. Raise `StoreUnavailable` if its beginning cannot be found.

        `links` stand in for links of files that a finished run told of: they are the caller's, so that the channel is
        one of its own, with the same events under the same ids.
        """
        channel = await self._open(view)
        if not links or not channel.is_complete or channel.log.dropped:
            return channel
        own = Channel(channel.run_id, EventLog(channel.log.max_bytes))
        events = sse.EventSplitter(channel.log.max_bytes).feed(channel.log.read(channel.log.start(), sys.maxsize)[0])
        await own.publish(replay.with_links(events, links))
        own.open()
        return own

    async def _open(self, view: PredictionView) -> Channel:
        run = view.run
        channel = self._live.get(run.id) or self._kept.get(run.id) or self.log_writer.unkept_channel(run.id)
        if channel is None:
            channel = self._live[run.id] = Channel(run.id, EventLog(self._max_log_bytes))
            channel.task = asyncio.create_task(self._fill(channel, run), name=f"stream {run.id}")
            channel.task.add_done_callback(lambda _: self._let_go(channel))
        await channel.opened()
        return channel

    def look(self, run_id: str) -> None:
        """Let the readers of a run look: one of its predictions has ended for its caller."""
        if channel := self._live.get(run_id):
            channel.look()

    def forget(self) -> None:
        """Drop what is kept of finished runs: the janitor has taken data away."""
        self._kept.clear()

    async def close(self) -> None:
        """Stop reading, and keep what has come: the next start goes on from there."""
        tasks = [channel.task for channel in self._live.values() if channel.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.log_writer.flush()

    def _let_go(self, channel: Channel) -> None:
        self._live.pop(channel.run_id, None)
        channel.open(StoreUnavailable("The stream could not be opened.", retry_after=1))

    async def _fill(self, channel: Channel, run: Run) -> None:
        try:
            await self._find(channel)
            if run.status.is_terminal and not channel.log.end:
                await self._finish(channel, run)
        except GatewayError as exc:
            channel.open(exc)
            return
        channel.open()
        if not channel.is_complete:
            try:
                await self._follow(channel, run)
            except Exception:
                # A defect. Those who read must not wait for ever; those who come next get a channel anew.
                logger.exception("a stream could not be read", extra={"run": run.id})
                self.log_writer.drop(channel)
                await channel.publish(replay.lost(self._clock.now(), _UNTOLD))
                return
        if channel.log.size + _OVERHEAD <= self._kept.maxsize:
            self._kept[run.id] = channel

    async def _find(self, channel: Channel) -> None:
        """Take up what is kept of a stream."""
        if (log := await self.log_writer.load(channel.run_id)) is not None:
            channel.log = log
            channel.kept, channel.is_kept_whole = log.end, log.is_closed

    async def _follow(self, channel: Channel, run: Run) -> None:
        """Read upstream's stream to its end; else tell the rest from the run's."""
        note = partial(self.log_writer.note, channel)
        ended = asyncio.create_task(self._end_and_silence(channel, run), name=f"end of stream {run.id}")
        feeding = asyncio.create_task(
            self._feed.fill(
                channel,
                run,
                has_ended=lambda: run.status.is_terminal or self._tracker.tracked(run.id) is None,
                on_news=note,
            ),
            name=f"feed of stream {run.id}",
        )
        try:
            # Upstream may keep a line up for ever on which it has nothing more to say.
            await asyncio.wait((feeding, ended), return_when=asyncio.FIRST_COMPLETED)
            feeding.cancel()
            await asyncio.wait((feeding,))
            for task in (feeding, ended):
                if task.done() and not task.cancelled():
                    task.result()
            if channel.is_complete:
                self._tracker.poll_now(run.id)
                return
            self._observer.upstream_interrupted("finished")
            has_begun = channel.log.end > 0
            await self._finish(channel, await self._end_of(run))
            if has_begun:
                note()
        finally:
            feeding.cancel()
            ended.cancel()
            await asyncio.gather(feeding, ended, return_exceptions=True)

    async def _end_and_silence(self, channel: Channel, run: Run) -> None:
        """Wait until the run has ended and its stream has told nothing new for a while."""
        await self._end_of(run)
        heard = -1
        while heard < channel.log.end:
            heard = channel.log.end
            await self._clock.sleep(LAST_WORDS_SECONDS)

    async def _end_of(self, run: Run) -> Run:
        """Wait for the run's own end: what its stream did not say stands in its result."""
        while not run.status.is_terminal:
            watch = self._tracker.tracked(run.id)
            if watch is not None:
                run = await watch.wait_until(lambda known: known.status.is_terminal, _LOOK_AGAIN_SECONDS)
                continue
            try:
                run = await self._tracker.newest(run)
            except GatewayError as exc:
                logger.warning("a run's end could not be learned yet", extra={"run": run.id, "reason": exc.detail})
            if not run.status.is_terminal:
                await self._clock.sleep(_PAUSE_AFTER_TROUBLE)
        return run

    async def _finish(self, channel: Channel, run: Run) -> None:
        """Complete a log from the run's result: what was not said of it, and the end."""
        log, ended_at = channel.log, run.ended_at or run.intended_at
        try:
            events = replay.replay(
                run.document, ended_at, sent=log.outputs, error_said=log.has_error, last_id=log.last_id
            )
        except ValueError as exc:
            logger.warning("a result cannot be replayed", extra={"run": run.id, "reason": str(exc)})
            events = replay.lost(ended_at, _UNTOLD)
        await channel.publish(events)
