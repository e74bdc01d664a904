"""The stream hub: one upstream connection per run, any number of readers.

See docs/architecture.md, Invariants 5 and 9, and Streams.

The first reader opens a run's channel. It is then filled to its end, even if all readers disconnect: from the stored
log (`log_writer`), then from upstream (`upstream_reader`), then from the run's result for events that upstream did not
send; `done` is always last. So a restart resumes after the last stored event, and a finished run is replayed with the
same ids and bytes. If a run's stream was never read, its events are made from its output (`rules.replay`).
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice

from cachetools import LRUCache
from msgspec.structs import replace

from gateway.domain.ports.clock import Clock
from gateway.domain.ports.observers import UpstreamObserver
from gateway.domain.records import PredictionView, Run
from gateway.errors import GatewayError, StoreUnavailable
from gateway.nodes.news import News, NoNews, Topic
from gateway.predictions.secret_values import SecretValues
from gateway.predictions.tracker import Tracker
from gateway.runtime.large_work import LargeWork
from gateway.runtime.live import LiveSettings
from gateway.runtime.lru import resize_lru
from gateway.runtime.pauses import off_the_loop
from gateway.runtime.tasks import Tasks, run_until_first
from gateway.streams.channel import Channel
from gateway.streams.log_reader import LogReader
from gateway.streams.log_writer import LogWriter
from gateway.streams.ports import EventLogs
from gateway.streams.rules import replay, sse
from gateway.streams.rules.event_log import EventLog
from gateway.streams.settings import StreamSettings
from gateway.streams.upstream_reader import Reader, Strike, UpstreamStreamReader
from gateway.streams.watchers import Watchers

logger = logging.getLogger(__name__)

_MAX_WAIT_SECONDS = 600.0
_RETRY_SECONDS = 2.0
_OVERHEAD = 1024
"""Bytes of a channel in memory, besides its events."""
_SMALLEST_LOG = 16 * 1024
"""Smallest bound of a live log, however many there are."""
MAX_SILENCE_AFTER_END_SECONDS = 10.0
"""How long a stream may send nothing new after its run has ended. Upstream sends `done` as the run ends, or never."""
_GROWS_AFTER_END_SECONDS = MAX_SILENCE_AFTER_END_SECONDS + 2.0
"""How long after the end of a run another node may store more of its events."""
_ANSWERED_SECONDS = 3.0
"""How long another node may take to say that it has events of the run: it is asked twice meanwhile."""
_ANSWERED_AGAIN_SECONDS = 6.0
"""The same of one that has said so before the run ended: it may be slow, or have died."""
_FLUSHED_SECONDS = 1.0
"""How long after the end of a run another node may store its first events."""
_REPLAYED_AT_ONCE = 10_000
"""Events of a run's result that are made before they are published."""
_RELINKED_BYTES = 64 * 1024
_LARGE_REPLAYS = 2
"""Large documents from the store that are replayed at a time; one of each team."""
_END_UNKNOWN = "The end of this stream is not available. Read the prediction instead."


class StreamHub:
    """Opens and fills the channels of runs."""

    def __init__(
        self,
        reader: Reader,
        tracker: Tracker,
        store: EventLogs,
        clock: Clock,
        observer: UpstreamObserver,
        settings: LiveSettings[StreamSettings],
        secret_values: SecretValues | None = None,
        news: News | None = None,
    ) -> None:
        """Take `news`, by which nodes tell each other what they watch and what has grown."""
        self._news = news = news or NoNews()
        self._watchers = Watchers(clock)
        self.log_writer = LogWriter(store, clock, settings, self._watchers)
        self.log_reader = LogReader(store, clock, news)
        news.add_listener(Topic.WATCH, self._on_watched)
        self._feed = UpstreamStreamReader(reader, clock, observer)
        self._tracker = tracker
        self._secrets = SecretValues() if secret_values is None else secret_values
        self._clock = clock
        self._observer = observer
        self._settings = settings
        self._is_closed = False
        self._live: dict[str, Channel] = {}
        self._filling: dict[str, asyncio.Task[None]] = {}
        self._shared = settings.value.max_log_bytes
        """The present bound of each live log."""
        self._tasks = Tasks()
        self._large = LargeWork(_LARGE_REPLAYS)
        self._kept: LRUCache[str, Channel] = LRUCache(
            settings.value.kept_log_bytes, getsizeof=lambda channel: channel.log.size + _OVERHEAD
        )

        settings.subscribe(self._apply)

    def _apply(self, settings: StreamSettings) -> None:
        self._kept = resize_lru(self._kept, settings.kept_log_bytes)

    def _log_bytes(self) -> int:
        """Return how large a live log may be: what all logs together may have is divided among them.

        The number of logs is rounded up to a power of two, so that it seldom changes.
        """
        settings = self._settings.value
        share = settings.live_log_bytes >> max(0, len(self._live) - 1).bit_length()
        return min(settings.max_log_bytes, max(_SMALLEST_LOG, share))

    def _share_memory(self) -> None:
        most = self._log_bytes()
        if most != self._shared:
            self._shared = most
            for channel in self._live.values():
                channel.log.max_bytes = most

    @property
    def live(self) -> int:
        """Number of channels that are being filled from upstream."""
        return sum(not self.log_reader.follows(run_id) for run_id in self._live)

    @property
    def live_bytes(self) -> int:
        """Bytes of the logs of channels that are being filled."""
        return sum(channel.log.size for channel in self._live.values())

    @property
    def kept_bytes(self) -> int:
        """Bytes of memory that cached channels of finished runs use."""
        return int(self._kept.currsize)

    async def open(self, view: PredictionView, links: Mapping[str, str] | None = None) -> Channel:
        """Return the channel of a prediction's run. Raise `StoreUnavailable` if its stored log cannot be loaded.

        `links` maps upstream's links to those of stored copies. Links differ per caller, so for a finished run they
        result in a new channel with the same events under the same ids.
        """
        channel = await self._open(view)
        if not links or not channel.is_complete or channel.log.dropped:
            return channel
        relinked = Channel(channel.run_id, EventLog(channel.log.max_bytes))
        splitter = sse.EventSplitter(channel.log.max_bytes)
        data, cursor = channel.log.read(channel.log.start(), _RELINKED_BYTES)
        while data:
            await relinked.publish(replay.with_links(splitter.feed(data), links))
            await asyncio.sleep(0)
            data, cursor = channel.log.read(cursor, _RELINKED_BYTES)
        relinked.open()
        return relinked

    async def _open(self, view: PredictionView) -> Channel:
        run = view.run
        channel = self._known_channel(run.id)
        if channel is None:
            # The task lasts as long as the run. It needs the document of an ended run only.
            channel = self._fill_new(run if run.status.is_terminal else view.without_document().run)
        await channel.opened()
        return channel

    def _known_channel(self, run_id: str) -> Channel | None:
        return self._live.get(run_id) or self._kept.get(run_id) or self.log_writer.dirty_channel(run_id)

    def _fill_new(self, run: Run) -> Channel:
        channel = self._live[run.id] = Channel(run.id, EventLog(self._log_bytes()))
        task = self._tasks.spawn(self._fill(channel, run), f"stream {run.id}")
        self._share_memory()
        self._filling[run.id] = task
        task.add_done_callback(lambda done: self._release(channel, done))
        return channel

    def _on_watched(self, names: Sequence[str] | None) -> None:
        """Fill the channels of runs of this node that other nodes watch, and store their events soon."""
        # News arrive for longer than upstream can be read: with the last of them, nothing is begun.
        for run_id in names or () if not self._is_closed else ():
            tracked, channel = self._tracker.tracked(run_id), self._known_channel(run_id)
            if tracked is None and channel is None:
                continue
            self._watchers.add(run_id)
            if self._has_events(run_id):
                # This is also the answer that there are, or will be, some.
                self._news.tell(Topic.EVENTS, run_id)
            self.log_writer.hurry(run_id)
            if tracked is not None and channel is None and tracked.run.stream_url is not None:
                self._fill_new(replace(tracked.run, document=b"", request=b""))

    def _has_events(self, run_id: str) -> bool:
        """Return whether this node may still store events of a run."""
        is_filled = run_id in self._live and not self.log_reader.follows(run_id)
        return is_filled or self.log_writer.dirty_channel(run_id) is not None

    def take_over(self, run: Run) -> None:
        """Read on a stream that another node has read until now. Call when this node follows the run.

        Its readers come back to any node, and perhaps only when the run has ended: then nobody would read the rest.
        """
        if run.stream_url is not None and self._known_channel(run.id) is None:
            self._tasks.spawn(self._read_on(run), f"taken stream {run.id}")

    async def _read_on(self, run: Run) -> None:
        try:
            log = await self.log_writer.load(run.id)
        except GatewayError:
            # A reader who comes loads it again.
            return
        if log is not None and not (log.is_closed or self._is_closed) and self._known_channel(run.id) is None:
            self._fill_new(replace(run, document=b"", request=b""))

    def check_canceled(self, run_id: str) -> None:
        """End the streams of a run's canceled predictions. Call after a prediction of a shared run was canceled."""
        if channel := self._live.get(run_id):
            channel.check_canceled()

    def forget(self) -> None:
        """Clear the cache of finished runs. Call after data of runs was deleted."""
        self._kept.clear()

    async def close(self) -> None:
        """Stop reading, and store the events so far: the next start resumes after them."""
        self._is_closed = True
        await self._tasks.close(0.0)
        await self.log_writer.flush()

    def drop(self) -> None:
        """Read no stream any more, and store nothing: the runs are other nodes'. Readers are to come again."""
        self.log_writer.drop_all()
        for channel in self._live.values():
            channel.is_dropped = True
            channel.open()
        for task in self._filling.values():
            task.cancel()
        # Now, not when the tasks have ended: readers who come meanwhile would wait for events of a channel without any.
        self._live.clear()
        self._filling.clear()

    def _release(self, channel: Channel, task: asyncio.Task[None]) -> None:
        if self._filling.get(channel.run_id) is task:
            del self._live[channel.run_id], self._filling[channel.run_id]
        channel.open(StoreUnavailable("The stream could not be opened.", retry_after=1))

    async def _fill(self, channel: Channel, run: Run) -> None:
        strike = self._secrets.of_stream(run.id)
        try:
            await self._load(channel)
            if run.status.is_terminal and not channel.log.end and not self._may_grow(run):
                await self._finish(channel, run)
        except GatewayError as exc:
            channel.open(exc)
            return
        channel.open()
        while not channel.is_complete:
            try:
                if self._tracker.owns(run):
                    await self._follow(channel, run, strike)
                else:
                    run = await self._watch(channel, run)
            except Exception:
                # A bug. End the current readers' streams; later readers get a new channel.
                logger.exception("reading an upstream stream failed", extra={"run": run.id})
                self.log_writer.drop(channel)
                await channel.publish(replay.lost(self._clock.now(), _END_UNKNOWN))
                return
        if channel.log.size + _OVERHEAD <= self._kept.maxsize and not channel.has_gap:
            self._kept[run.id] = channel

    async def _load(self, channel: Channel) -> None:
        """Load the stored part of the log, if any."""
        if (log := await self.log_writer.load(channel.run_id)) is not None:
            log.max_bytes = self._log_bytes()
            channel.log = log
            channel.stored = log.end

    async def _follow(self, channel: Channel, run: Run, strike: Strike | None) -> None:
        """Read upstream's stream to its end. If it ends early, add the rest from the run's result."""
        note = partial(self.log_writer.mark_dirty, channel)
        feeding = self._feed.fill(
            channel,
            run,
            has_ended=lambda: run.status.is_terminal or self._tracker.tracked(run.id) is None,
            on_events=note,
            strike=strike,
        )
        # Upstream may keep a connection open after the run's end without sending `done`.
        await run_until_first(feeding, self._end_and_silence(channel, run))
        if channel.is_complete:
            self._tracker.poll_now(run.id)
            return
        self._observer.upstream_interrupted("finished")
        had_events = channel.log.end > 0
        await self._finish(channel, await self._wait_for_end(run))
        if had_events or (self._watchers.until and self._watchers.has(run.id)):
            note()

    def _may_grow(self, run: Run) -> bool:
        """Return whether the owner of an ended run may still have events to store."""
        ended_at = run.ended_at or run.intended_at
        return not self._tracker.owns(run) and self._clock.now() - ended_at < _GROWS_AFTER_END_SECONDS

    async def _watch(self, channel: Channel, run: Run) -> Run:
        """Take the events that the run's owner stores, until the log is complete or this node follows the run.

        If the owner stores no end, it is made from the run's result, as for a run whose stream nobody has read.
        """
        known = run
        reading = self.log_reader.follow(channel)

        async def until_over() -> None:
            nonlocal known
            known = await self._wait_for_end(run, or_owned=True)
            seen = -1
            while known.status.is_terminal and seen < channel.log.end:
                seen = channel.log.end
                was_answered = self.log_reader.is_answered(run.id)
                # Whoever had more may have died since.
                self.log_reader.ask_again(run.id)
                waited = _ANSWERED_AGAIN_SECONDS if was_answered else _ANSWERED_SECONDS if seen else _FLUSHED_SECONDS
                await self._clock.sleep(waited)
                if self.log_reader.is_answered(run.id) or (seen and not self._news.is_listening):
                    await self._clock.sleep(_GROWS_AFTER_END_SECONDS - waited)

        await run_until_first(reading, until_over())
        if not channel.is_complete and known.status.is_terminal:
            await self._finish(channel, await self._wait_for_end(known))
        return known

    async def _end_and_silence(self, channel: Channel, run: Run) -> None:
        """Wait until the run has ended and its stream has sent nothing new for `MAX_SILENCE_AFTER_END_SECONDS`."""
        await self._wait_for_end(run)
        seen = -1
        while seen < channel.log.end:
            seen = channel.log.end
            await self._clock.sleep(MAX_SILENCE_AFTER_END_SECONDS)

    async def _wait_for_end(self, run: Run, *, or_owned: bool = False) -> Run:
        """Wait until the run has ended; return it with its result. With `or_owned`, until this node follows it."""

        def is_over(known: Run) -> bool:
            return known.status.is_terminal or (or_owned and self._tracker.owns(known))

        while not is_over(run):
            tracked = self._tracker.awaited(run)
            if tracked is not None:
                run = await tracked.wait_until(is_over, _MAX_WAIT_SECONDS)
                continue
            try:
                run = await self._tracker.newest(run)
            except GatewayError as exc:
                logger.warning("reading a run's state failed, retrying", extra={"run": run.id, "reason": exc.detail})
            if not is_over(run):
                await self._clock.sleep(_RETRY_SECONDS)
        return run

    async def _finish(self, channel: Channel, run: Run) -> None:
        """Complete a log from the run's result: add the output that is missing, and the end."""
        if run.document:
            await self._replay(channel, run)
            return
        # It is large, and was left in the store.
        async with self._large.turn(run.team):
            await self._replay(channel, await self._tracker.newest(run))

    async def _replay(self, channel: Channel, run: Run) -> None:
        log, ended_at = channel.log, run.ended_at or run.intended_at
        replayed = partial(
            replay.events_of,
            run.document,
            ended_at,
            sent=log.outputs,
            error_sent=log.has_error,
            last_id=log.last_id,
            # Which logs a stream that has begun has had is not known.
            most_bytes=0 if log.end else log.max_bytes,
        )
        try:
            events = await off_the_loop(run.document, replayed)
            while some := await off_the_loop(run.document, lambda: list(islice(events, _REPLAYED_AT_ONCE))):
                await channel.publish(some)
        except ValueError as exc:
            logger.warning("replaying a run's result failed", extra={"run": run.id, "reason": str(exc)})
            await channel.publish(replay.lost(ended_at, _END_UNKNOWN))
